"""Credentials for the daemons, served on loopback as a container's credential endpoint serves them.

In: GET with the token that was given to one daemon. Out: the keys of its stream's account as they stand, JSON. So
roles, external ids, session durations, profiles and refreshing are Python's alone, and Java holds no long-lived key.
Never: keys without the right token, keys in a log, an address other than 127.0.0.1.
"""

from __future__ import annotations

import hmac
import json
import logging
import secrets
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer

from edfn_agent.inputs.kinesis.stream import Keys

log = logging.getLogger(__name__)

UNENDING = timedelta(hours=1)
"""What is said of keys without an end: asked for again in time, should they have been changed in their file."""


class CredentialServer:
    """One for all daemons of the agent; each has its own path and token."""

    def __init__(self) -> None:
        self._sources: dict[str, tuple[str, str, Callable[[], Keys]]] = {}
        self._failed: set[str] = set()
        self._http: ThreadingTCPServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, answer = server.answer(self.path, self.headers.get("Authorization", ""))
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        # no HTTPServer: it asks the DNS for its own name, ten seconds where no DNS answers
        self._http = ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, name="kinesis-credentials", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
        if self._thread is not None:
            self._thread.join(5)

    def offer(self, name: str, keys: Callable[[], Keys]) -> dict[str, str]:
        """The environment that leads a daemon here."""
        assert self._http is not None
        path, token = f"/{secrets.token_urlsafe(12)}", secrets.token_urlsafe(32)
        self.withdraw(name)
        self._sources[path] = (name, token, keys)
        return {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{self._http.server_address[1]}{path}",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": token,
        }

    def withdraw(self, name: str) -> None:
        for path in [path for path, source in self._sources.items() if source[0] == name]:
            self._sources.pop(path, None)

    def answer(self, path: str, authorization: str) -> tuple[int, dict[str, str]]:
        source = self._sources.get(path)
        if source is None or not hmac.compare_digest(source[1].encode(), authorization.encode()):
            return 403, {"message": "not allowed"}
        name, _, keys = source
        try:
            now = keys()
        except Exception as error:
            if name not in self._failed:  # the daemon asks every few seconds; saying it once is enough
                log.error("kinesis %s: no credentials: %s", name, error)
            self._failed.add(name)
            return 500, {"message": "the agent has no credentials for this stream now"}
        self._failed.discard(name)
        answer = {
            "AccessKeyId": now.access_key,
            "SecretAccessKey": now.secret_key,
            "Expiration": _zulu(now.expires or datetime.now(UTC) + UNENDING),
        }
        if now.token:
            answer["Token"] = now.token
        return 200, answer


def _zulu(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
