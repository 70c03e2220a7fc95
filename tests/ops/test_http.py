"""The status server, looked at by plain sockets: what it says, and that no client can harm it."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edfn_agent.ops.http import REQUEST_OCTETS, ListenError, Readiness, StatusServer
from edfn_agent.ops.metrics import Metrics


class Agent:
    """What the server is told of the agent."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.health: object = Readiness(True)
        self.is_alive = True

    def tell(self):
        if isinstance(self.health, Exception):
            raise self.health
        return self.health

    def templates(self):
        return [{"collector": "udp://192.0.2.10:4739", "domains": []}]


@pytest.fixture
def agent():
    return Agent()


@pytest.fixture
def serve(agent):
    with contextlib.ExitStack() as stack:

        def serve_(host="127.0.0.1", port=0, **options):
            server = StatusServer(
                host,
                port,
                registry=agent.metrics.registry,
                health=agent.tell,
                templates=agent.templates,
                alive=lambda: agent.is_alive,
                **options,
            )
            stack.callback(server.close)
            server.start()
            return server

        yield serve_


def ask(server, path, method="GET", **headers):
    connection = http.client.HTTPConnection(*server.address, timeout=5)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def raw(server, octets=b""):
    sock = socket.create_connection(server.address, timeout=5)
    sock.sendall(octets)
    return sock


def test_metrics_are_what_prometheus_reads(serve, agent):
    agent.metrics.deliveries.labels("s3", "acknowledged").inc(3)
    status, headers, body = ask(serve(), "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    (sample,) = [s for s in families["edfn_deliveries"].samples if s.name == "edfn_deliveries_total"]
    assert (sample.labels, sample.value) == ({"input": "s3", "outcome": "acknowledged"}, 3.0)


def test_metrics_as_openmetrics_when_asked_for(serve):
    _, headers, body = ask(serve(), "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_alive_and_stuck(serve, agent):
    server = serve()
    assert ask(server, "/healthz")[::2] == (200, b"alive\n")
    agent.is_alive = False
    assert ask(server, "/healthz")[::2] == (503, b"stuck\n")


def test_ready_or_the_reasons_why_not(serve, agent):
    server = serve()
    assert ask(server, "/readyz")[0] == 200
    agent.health = Readiness(False, ["udp://192.0.2.10:4739: no route to host"], {"sources": {"q": "fails"}})
    status, headers, body = ask(server, "/readyz?verbose")
    assert (status, headers["Content-Type"]) == (503, "application/json")
    assert json.loads(body) == {
        "ready": False,
        "reasons": ["udp://192.0.2.10:4739: no route to host"],
        "sources": {"q": "fails"},
    }


def test_who_cannot_tell_is_not_ready(serve, agent):
    agent.health = RuntimeError("secret inside")
    status, _, body = ask(serve(), "/readyz")
    assert status == 503
    assert b"secret" not in body


def test_templates_index_and_nothing_else(serve):
    server = serve()
    assert json.loads(ask(server, "/templates")[2])[0]["collector"] == "udp://192.0.2.10:4739"
    assert b"/readyz" in ask(server, "/")[2]
    for path in ("/nothing", "/metrics/", "/../etc/passwd"):
        assert ask(server, path)[0] == 404


def test_a_page_that_fails_is_a_500_and_the_next_works(serve, agent):
    agent.templates = lambda: 1 / 0
    server = serve()
    status, _, body = ask(server, "/templates")
    assert (status, body) == (500, b"ZeroDivisionError while making /templates; see the log\n")
    assert ask(server, "/healthz")[0] == 200


def test_head_has_the_length_and_no_body(serve):
    server = serve()
    status, headers, body = ask(server, "/healthz", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "6", b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_only_get_and_head(serve, method):
    status, headers, _ = ask(serve(), "/metrics", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_a_request_without_end_is_not_read_to_it(serve):
    server = serve()
    with raw(server, b"GET /healthz HTTP/1.1\r\n") as sock:
        with contextlib.suppress(OSError):  # it hangs up in the middle
            for _ in range(20 * REQUEST_OCTETS // 1000):
                sock.sendall(b"X: " + b"y" * 995 + b"\r\n")
        with contextlib.suppress(OSError):
            while sock.recv(1000):
                pass
    assert ask(server, "/healthz")[0] == 200


def test_what_is_no_http_is_refused(serve):
    server = serve()
    for octets in (b"\x16\x03\x01\x02\x00\x01\n\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\r\n\r\n"):
        with raw(server, octets) as sock:
            sock.settimeout(5)
            with contextlib.suppress(OSError):
                while sock.recv(1000):
                    pass
    assert ask(server, "/healthz")[0] == 200


def test_silent_dripping_and_deaf_clients_are_over_by_the_deadline(serve, agent):
    agent.templates = lambda: ["x" * 30_000_000]  # more than the kernel buffers
    server = serve(deadline=0.5)
    before = time.monotonic()
    silent = raw(server)
    deaf = raw(server, b"GET /templates HTTP/1.0\r\n\r\n")
    dripping = raw(server, b"GET /heal")
    assert ask(server, "/healthz")[0] == 200
    with pytest.raises(OSError):
        while time.monotonic() - before < 10:
            dripping.sendall(b"x")
            time.sleep(0.05)
    assert silent.recv(1) == b""
    with contextlib.suppress(ConnectionResetError):
        assert sum(len(octets) for octets in iter(lambda: deaf.recv(1 << 20), b"")) < 30_000_000
    assert time.monotonic() - before < 5
    for sock in (silent, deaf, dripping):
        sock.close()
    until = time.monotonic() + 5
    while server._server._open and time.monotonic() < until:
        time.sleep(0.01)
    assert server._server._open == {}


def test_no_more_connections_than_allowed_and_places_come_back(serve):
    server = serve(connections=3, deadline=1.0)
    threads = threading.active_count()
    held = [raw(server) for _ in range(3)]
    until = time.monotonic() + 5
    while len(server._server._open) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    with raw(server) as refused:
        assert refused.recv(1000).startswith(b"HTTP/1.0 503")
    assert threading.active_count() <= threads + 3
    for sock in held:
        assert sock.recv(1) == b""  # the deadline
        sock.close()
    until = time.monotonic() + 5
    while server._server._open and time.monotonic() < until:
        time.sleep(0.01)
    assert ask(server, "/healthz")[0] == 200


def test_a_page_that_hangs_keeps_no_other_from_its_answer(serve, agent):
    released = threading.Event()
    agent.templates = lambda: released.wait(10)
    server = serve()
    with raw(server, b"GET /templates HTTP/1.0\r\n\r\n"):
        assert ask(server, "/healthz")[0] == 200
    released.set()


def test_close_ends_what_is_connected_and_frees_the_port(serve):
    server = serve()
    with raw(server) as sock:
        ask(server, "/healthz")
        server.close()
        assert sock.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        raw(server)
    serve(port=server.address[1])


def test_a_port_in_use_is_a_clear_error(serve):
    host, port = serve().address
    with pytest.raises(ListenError) as caught:
        serve(host, port)
    assert str(caught.value) == (
        f"http.listen 127.0.0.1:{port}: address already in use: is another edfn-agent running? Choose another port, "
        "or `off`"
    )


def test_addresses_that_cannot_be_are_clear_errors(serve):
    with pytest.raises(ListenError, match=r"^http.listen 192.0.2.1:9465: .* this machine does not have the address"):
        serve("192.0.2.1", 9465)
    with pytest.raises(ListenError, match=r"the host has no address"):
        serve("no-such-host.invalid", 9465)


def test_ipv6(serve):
    try:
        server = serve("::1")
    except ListenError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")
    assert ask(server, "/healthz")[0] == 200
