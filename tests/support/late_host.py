"""A real photo host whose photos come late: an address answers what its script says, and then the photo."""

import threading
from collections import defaultdict, deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

PHOTO = b"\xff\xd8\xff\xe0 a photo, for a model that does not look"
DRIP_S = 0.2


@dataclass(frozen=True, slots=True)
class Step:
    """One answer.

    Args:
        headers: beside Content-Length.
        gate: the photo comes byte by byte until this is set: slow, and never silent.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    gate: threading.Event | None = None


@dataclass
class LateHost:
    """Serves on 127.0.0.1 while entered; `script` maps a path to the answers before the photo."""

    script: dict[str, deque[Step]] = field(default_factory=lambda: defaultdict(deque))
    always: dict[str, Step] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    port: int = 0

    def __enter__(self) -> Self:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def do_GET(self) -> None:
                owner.asked.append(self.path)
                steps = owner.script[self.path]
                step = steps.popleft() if steps else owner.always.get(self.path, Step())
                if step.gate is not None:
                    self._drip(step.gate)
                    return
                body = PHOTO if step.status == 200 else b""
                self.send_response(step.status)
                for name, value in {**step.headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def _drip(self, gate: threading.Event) -> None:
                self.close_connection = True
                self.send_response(200)
                self.send_header("Connection", "close")
                self.end_headers()
                with suppress(OSError):  # whoever asked does not wait any longer
                    self.wfile.write(PHOTO)
                    while not gate.wait(DRIP_S):
                        self.wfile.write(b"\0")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
                """Tests look at `asked`."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def url(self, path: str) -> str:
        """The whole address of a path."""
        return f"http://127.0.0.1:{self.port}{path}"
