"""The HTTP endpoint of Amazon Data Firehose: the agent is the destination that a delivery stream posts to.

In: HTTPS requests as AWS publishes them ("HTTP endpoint delivery request and response specifications", version 1.0).
Out: one Delivery per request (two if plain and gzip records are mixed), given to `submit`; the answer 200 leaves only
when every one of them has been acknowledged. Never: 200 for records that are not exported, a body read from someone who
has not shown the access key, a body in memory that was not reserved first, plain HTTP anywhere but on loopback.

What the answers mean to Firehose: 200 is delivered; 413 is permanent (it stops trying and writes the records to the
stream's backup bucket); everything else is tried again, with the same request id, for the stream's retry duration, and
then written to the backup bucket. So 413 is what is said of records that can never be taken, and of nothing else.

`connection` reads and answers, `body` knows the format, `requests` the replays, `credentials` keys and certificates.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edfn_agent.delivery import Delivery, Origin, Outcome
from edfn_agent.formats.layout import Layout
from edfn_agent.inputs.firehose.body import Refusal, by_shape
from edfn_agent.inputs.firehose.connection import Server
from edfn_agent.inputs.firehose.credentials import AccessKeys, Certificate, EndpointError
from edfn_agent.inputs.firehose.requests import Entry, Requests, Reserve

__all__ = ["EndpointError", "EndpointSettings", "FirehoseEndpoint"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """How to listen. Times in seconds, sizes in octets."""

    host: str
    port: int
    certificate: Path | None = None  # PEM, with the chain: Firehose accepts publicly trusted certificates only
    key: Path | None = None
    access_key_file: Path | None = None  # one key a line; two lines while a key is being changed
    connections: int = 256  # one more is closed at once; Firehose tries again
    memory: int = 1 << 30  # bodies being taken apart at one time; the rest waits unread in the sender's socket
    head_within: float = 10.0  # from the first octet of a request to the end of its header
    idle: float = 75.0  # between two requests of one connection
    slowest: int = 64 * 1024  # octets a second that a body must make, once `body_start` is over
    body_start: float = 20.0
    answer_within: float = 165.0  # under Firehose's 180 s: better our reason than its own timeout
    replay_window: float = 3 * 3600.0  # longer than the longest retry duration (2 h) that a stream can have
    replay_entries: int = 200_000  # about 30 MB when full


class FirehoseEndpoint:
    """Listens, checks, hands over, waits for the acknowledgement, answers."""

    def __init__(
        self,
        settings: EndpointSettings,
        submit: Callable[[Delivery], object],
        layout_of: Callable[[str], Layout | None] = lambda stream_arn: None,
        count: Callable[[str], object] = lambda outcome: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`layout_of` knows the layout of the flow log that feeds a delivery stream; `submit` may take its time.

        `count` hears what became of each request: acknowledged, replay (acknowledged, and exported before), returned
        (to be tried again), malformed (or never to be read), refused (a stranger), over_limit (of connections).
        """
        _check(settings)
        self.settings = settings
        self.count = count
        self.requests = Requests(settings.replay_window, settings.replay_entries, clock)
        self.reserve = Reserve(settings.memory)
        self.keys = AccessKeys(settings.access_key_file) if settings.access_key_file else None
        self.stopping = threading.Event()
        self._submit = submit
        self._layout_of = layout_of
        self._tls = Certificate(settings.certificate, settings.key) if settings.certificate and settings.key else None
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> tuple[str, int]:
        """Bind and serve; the address that is listened on (useful with port 0)."""
        if self.keys is None:
            log.warning("firehose: no access key is configured; whoever reaches the port on loopback can send records")
        try:
            self._server = Server(self)
        except OSError as error:
            raise EndpointError(f"cannot listen on {self.settings.host}:{self.settings.port}: {error}") from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="firehose", daemon=True
        )
        self._thread.start()
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def stop(self, grace: float = 30.0) -> None:
        """Accept nothing more, let what is in hand be acknowledged and answered, then close every connection."""
        self.stopping.set()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.drain(grace)
            self._server.server_close()

    def secure(self, connection: socket.socket) -> socket.socket:
        return connection if self._tls is None else self._tls.wrap(connection, self.settings.head_within)

    def take(self, request_id: str, stream_arn: str, records: list[bytes]) -> tuple[Entry, bool]:
        """Hand the records over, unless this request is in hand or was acknowledged before; whether they were."""
        if self.stopping.is_set():
            raise Refusal(503, "the agent is stopping; try again")
        entry, is_first = self.requests.enter(stream_arn, request_id)
        if not is_first:
            return entry, False
        try:
            # arn:PARTITION:firehose:REGION:ACCOUNT:deliverystream/NAME. The account is the stream's, which across
            # accounts is not the flow log's: left open, so that the record, its envelope or the inventory says it.
            parts = stream_arn.split(":", 5)
            origin = Origin("firehose", stream_arn or "unknown", region=parts[3] if len(parts) == 6 else None)
            layout = self._layout_of(stream_arn)
            name = f"{stream_arn or 'firehose'} request {request_id}"
            deliveries = [Delivery(origin, name, chunks, entry.settle, layout) for chunks in by_shape(records)]
            records.clear()  # each record is let go as the pipeline reads it
            entry.expect(len(deliveries))
            for delivery in deliveries:
                self._submit(delivery)
        except Exception as error:
            log.exception("firehose: request %s could not be handed over", request_id)
            entry.abandon(f"{type(error).__name__}: {error}")
        return entry, True

    def wait(self, entry: Entry) -> None:
        """Until the records are exported. Raises Refusal when they are not."""
        if not entry.finished.wait(self.settings.answer_within):
            # The next try joins this very entry: the records are not sent twice because we were slow.
            raise Refusal(503, "not exported yet; the records are kept, try again")
        if entry.taken:
            return
        if entry.outcome is Outcome.QUARANTINED:
            raise Refusal(413, f"these records can never be read: {entry.reason}")
        raise Refusal(503, f"not exported: {entry.reason}")


def _check(settings: EndpointSettings) -> None:
    if (settings.certificate is None) != (settings.key is None):
        raise EndpointError("a certificate needs its key, and a key its certificate")
    if _is_loopback(settings.host):
        return
    if settings.certificate is None:
        raise EndpointError(
            f"{settings.host or 'every address'} is not loopback: give a certificate and a key, "
            "or listen on 127.0.0.1 behind a proxy that ends TLS"
        )
    if settings.access_key_file is None:
        raise EndpointError(f"{settings.host or 'every address'} is not loopback: give a file with the access key")


def _is_loopback(host: str) -> bool:
    """Whether every address of the host is loopback. An empty host is every interface, and so is 0.0.0.0."""
    if not host:
        return False
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
        return bool(found) and all(ipaddress.ip_address(str(address).split("%")[0]).is_loopback for address in found)
    except (OSError, ValueError):
        return False
