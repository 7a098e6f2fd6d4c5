"""Everything that the HTTP client connects to, told to the test, and led to the test's own host.

The place is the last one above the socket: what the client resolves, judges, and sends is its own.
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import aiohappyeyeballs
import pytest

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]


class Wire:
    """`connected` holds every address that was about to be connected to, in order; `port` is where all of them lead."""

    def __init__(self) -> None:
        self.connected: list[str] = []
        self.port = 0

    async def start_connection(self, addr_infos: Sequence[AddressInfo], **_: object) -> socket.socket:
        """In the place of `aiohappyeyeballs.start_connection`."""
        self.connected += [str(info[4][0]) for info in addr_infos]
        led = socket.socket()
        led.setblocking(False)
        await asyncio.get_running_loop().sock_connect(led, ("127.0.0.1", self.port))
        return led


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    """The wire of this test."""
    laid = Wire()
    monkeypatch.setattr(aiohappyeyeballs, "start_connection", laid.start_connection)
    return laid
