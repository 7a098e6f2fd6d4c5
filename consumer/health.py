"""One port for those who watch: /healthz (is it alive), /readyz (should it be relied on), /metrics; and for commands.

`Health` holds what is known, told by the service's threads; the server only reads it, in a thread of its own.
A command (POST /resume) is taken from this machine alone; or, where there is a token, from whoever has it.
"""

import hmac
import ipaddress
import json
import threading
import time
from collections.abc import Callable, Mapping
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

STALE_S: Final = 30.0  # a poll loop that has not moved for so long is stuck: a drain takes at most shutdown_s
MAX_COMMAND_BYTES: Final = 64 * 1024

Command = Callable[[Any], object]
"""Takes what was posted, as JSON has it; ValueError, TypeError and AttributeError say that it is nothing for it."""


class Health:
    """Whether the poll loop moves, and what keeps the service from being ready."""

    def __init__(self, stale_s: float = STALE_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._stale_s, self._clock = stale_s, clock
        self._beat = clock()
        self._missing: dict[str, str] = {}
        self._lock = threading.Lock()

    def beat(self) -> None:
        """The poll loop moved."""
        self._beat = self._clock()

    def set(self, condition: str, missing: str | None) -> None:
        """A condition of readiness holds (None), or what is missing, in one sentence."""
        with self._lock:
            missing_now = dict(self._missing)
            if missing is None:
                missing_now.pop(condition, None)
            else:
                missing_now[condition] = missing
            self._missing = missing_now  # replaced whole: readers never see it half changed

    @property
    def alive(self) -> bool:
        """For /healthz."""
        return self._clock() - self._beat < self._stale_s

    @property
    def missing(self) -> dict[str, str]:
        """For /readyz: empty when ready."""
        return self._missing


class HealthServer:
    """Serves a `Health` and a registry.

    Args:
        commands: by path; each gets the object that was posted and gives the one to answer.
        token: what a command must come with, as `Authorization: Bearer …`.

    Raises:
        OSError: (from `start`) the port is taken.
    """

    def __init__(
        self,
        health: Health,
        registry: CollectorRegistry,
        host: str,
        port: int,
        *,
        commands: Mapping[str, Command] | None = None,
        token: str | None = None,
    ) -> None:
        self._health, self._registry = health, registry
        self._commands, self._token = dict(commands or {}), token
        self._address = (host, port)
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> int:
        """Bind and serve; returns the port."""
        health, registry, commands, allowed = self._health, self._registry, self._commands, self._allowed

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10  # seconds; an idle connection does not hold a thread for ever

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/healthz":
                    self._say(
                        200 if health.alive else 503, b"ok\n" if health.alive else b"the poll loop stands still\n"
                    )
                elif path == "/readyz":
                    missing = health.missing
                    body = json.dumps({"ready": not missing, "missing": missing}).encode() + b"\n"
                    self._say(503 if missing else 200, body, "application/json")
                elif path == "/metrics":
                    self._say(200, generate_latest(registry), CONTENT_TYPE_LATEST)
                else:
                    self._say(404, b"there are /healthz, /readyz and /metrics\n")

            def do_POST(self) -> None:
                command = commands.get(self.path)
                if command is None:
                    self._refuse(404, b"there is no such command\n")
                elif not allowed(self.client_address[0], self.headers):
                    self._refuse(403, b"commands come from this machine, or with the token of http.token\n")
                else:
                    try:
                        size = max(0, min(int(self.headers.get("Content-Length") or 0), MAX_COMMAND_BYTES))
                        answer = command(json.loads(self.rfile.read(size) or b"{}"))
                    except (ValueError, TypeError, AttributeError):
                        self._refuse(400, b"that is no such command's object\n")
                    else:
                        self._say(200, json.dumps(answer).encode() + b"\n", "application/json")

            def _refuse(self, status: int, why: bytes) -> None:
                self.close_connection = True  # what was posted is not read: it must not pass for the next request
                self._say(status, why)

            def _say(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
                """Probes every second would drown the log."""

        self._server = ThreadingHTTPServer(self._address, Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()
        return int(self._server.server_address[1])

    def _allowed(self, peer: str, headers: Message) -> bool:
        """Whether a command may come from there.

        A page in a browser of this machine can post here too, but not as JSON: the browser would ask us first.
        """
        if headers.get_content_type() != "application/json":
            return False
        if self._token is not None:
            given = headers.get("Authorization") or ""
            return hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode())
        return ipaddress.ip_address(peer).is_loopback

    def stop(self) -> None:
        """Close the port."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
