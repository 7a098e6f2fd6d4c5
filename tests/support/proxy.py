"""A port that leads to a server, in the clear or ending TLS, and that can be led to another: what stands between us and
a real Redis where that is behind TLS, or fails over behind one address. And an egress proxy that makes tunnels.

The Valkey of the wheels is built without TLS; what a client sees of a terminating proxy is what it sees of a server.
"""

import asyncio
import contextlib
import ssl
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files, as PEM; `ca` is what a client must trust."""

    ca: Path
    certificate: Path
    key: Path


def make_certificate(folder: Path, name: str) -> Certificate:
    """A self-signed certificate for a name (`IP:127.0.0.1`, `DNS:elsewhere`), made with openssl."""
    folder.mkdir(parents=True, exist_ok=True)
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subject = ["-subj", "/CN=mmcat-test", "-addext", f"subjectAltName={name}", "-days", "2"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key)]
    made += ["-out", str(certificate), *subject]
    subprocess.run(made, check=True, capture_output=True, timeout=60)
    return Certificate(certificate, certificate, key)


class Proxy:
    """A context manager; `port` is where it listens.

    Args:
        target: port of 127.0.0.1 that it leads to.
        certificate: None passes bytes on as they are.
    """

    def __init__(self, target: int, certificate: Certificate | None = None) -> None:
        self._target = target
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate.certificate, certificate.key)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        serve = asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self._server = asyncio.run_coroutine_threadsafe(serve, self._loop).result(30)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    def lead_to(self, target: int) -> None:
        """Cut all connections; new ones go there."""
        self._target = target
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(30)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._lead(reader, writer, self._target)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int) -> None:
        self._open.add(writer)
        try:
            behind, to_behind = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.transport.abort()
            return
        self._open.add(to_behind)
        await asyncio.gather(self._pass(reader, to_behind), self._pass(behind, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while block := await reader.read(65536):
                writer.write(block)
                await writer.drain()
        self._open.discard(writer)
        writer.transport.abort()

    async def _cut(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()
        self._open.clear()

    async def _end(self) -> None:
        self._server.close()
        await self._cut()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class ConnectProxy(Proxy):
    """An egress proxy for https: leads each CONNECT to where its host is here; `asked` is all it was asked for.

    Args:
        hosts: ports of 127.0.0.1 by `name:port`; all others are forbidden (403).
    """

    def __init__(self, hosts: Mapping[str, int]) -> None:
        super().__init__(target=0)
        self._hosts = hosts
        self.asked: list[str] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, host = head.decode().split(" ")[:2]
        self.asked.append(f"{method} {host}")
        known = method == "CONNECT" and host in self._hosts
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" if known else b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        if known:
            await self._lead(reader, writer, self._hosts[host])
        else:
            writer.close()
