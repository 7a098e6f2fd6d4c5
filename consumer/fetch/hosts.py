"""What is known of each photo host: where its name leads, how many fetches it may hold, whether it is set aside.

client.py takes a slot of the host before each request and says afterwards how the host behaved; its connector asks
`Hosts.resolve` where to connect, and gets addresses that the policy admitted and no others. The check stands where the
connection takes its address from, so a name that changes its mind between check and connection (rebinding) gains
nothing.

A slow or dead host costs the others nothing: it holds at most its own slots, few of them until it has answered, and is
set aside after failures in a row. Runs in one asyncio loop; no locks. Every table is bounded.
"""

import asyncio
import ipaddress
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from consumer.fetch.addresses import AddressPolicy, RefusedAddressError
from consumer.fetch.ranges import IPAddress

# A host that never answered gets two slots, one more for each answer: with hundreds of hung hosts met at once, each
# holds two of the pool's connections and not all that `per_host` allows.
FIRST_SLOTS: Final = 2
# A fetch cut by its deadline sooner than this after it got its slot says nothing of the host: it had waited in line.
PATIENCE_S: Final = 0.5
# getaddrinfo blocks and cannot be cancelled: a name whose servers hang keeps its one thread until the system's own
# time-out, 10 s by default. Idle threads cost little, so many: 128 let through 13 hung names a second.
LOOKUP_THREADS: Final = 128

Lookup = Callable[[str], list[str]]


class UnresolvedHostError(Exception):
    """The name leads nowhere at the moment; the message names the host alone."""


class HostSetAsideError(Exception):
    """The host failed too often in a row and is left alone for a while."""


def system_lookup(host: str) -> list[str]:
    """Resolve by the system's resolver. Blocks.

    Raises:
        OSError: no such name, or no answer.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True)
class HostLimits:
    """Numbers of `Hosts`.

    Args:
        per_host: most fetches at once at one origin.
        failures_to_open: failures in a row after which a host is set aside.
        set_aside_s: for how long; then one fetch at a time tries.
        max_hosts: most origins and names remembered; the least recently used go.
        resolution_s, negative_s: how long an answer and a failure of the resolver hold.
        lookup_s: how long one fetch waits for the resolver.
    """

    per_host: int = 8
    failures_to_open: int = 5
    set_aside_s: float = 10.0
    max_hosts: int = 4096
    resolution_s: float = 60.0
    negative_s: float = 5.0
    lookup_s: float = 2.0


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the resolver said: admitted addresses, or why there are none."""

    addresses: tuple[IPAddress, ...]
    error: RefusedAddressError | UnresolvedHostError | None
    expires: float


@dataclass(slots=True)
class _Host:
    """Slots and breaker of one origin."""

    limit: int
    active: int = 0
    failures: int = 0
    open_until: float | None = None  # set aside until then, and beyond it until a probe succeeds
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class Slot:
    """Leave to send requests to one origin; says how the origin behaved."""

    def __init__(self, hosts: "Hosts", host: _Host, since: float) -> None:
        self._hosts = hosts
        self._host = host
        self._since = since
        self._excused = False

    @contextmanager
    def excused(self) -> Iterator[None]:
        """Meanwhile the host waits for us: a deadline that passes says nothing of it, nor once it has passed."""
        self._excused = True
        yield
        self._excused = False

    def succeeded(self) -> None:
        """The host answered, whatever it answered: it may have one slot more, and its breaker closes."""
        host = self._host
        host.failures = 0
        host.open_until = None
        host.limit = min(self._hosts.limits.per_host, host.limit + 1)

    def failed(self) -> None:
        """The host broke off or answered with an error of its own; at the limit of failures it is set aside."""
        limits, host = self._hosts.limits, self._host
        host.failures += 1
        host.limit = max(1, host.limit // 2)
        if host.failures >= limits.failures_to_open or host.open_until is not None:
            host.open_until = self._hosts.clock() + limits.set_aside_s
            self._hosts.turn_away(host)

    def timed_out(self) -> None:
        """The deadline passed; a failure of the host only if the host had time to answer."""
        if not self._excused and self._hosts.clock() - self._since >= PATIENCE_S:
            self.failed()


class Hosts:
    """The table of hosts.

    Args:
        policy: judges every address that a name leads to.
        lookup: blocking resolver, called in a thread of its own.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        limits: HostLimits,
        *,
        lookup: Lookup = system_lookup,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self.clock = clock
        self._policy = policy
        self._lookup = lookup
        self._hosts: OrderedDict[str, _Host] = OrderedDict()
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self._lookups: dict[str, asyncio.Task[_Answer]] = {}
        self._lookup_threads = asyncio.Semaphore(LOOKUP_THREADS)

    @asynccontextmanager
    async def slot(self, origin: str) -> AsyncIterator[Slot]:
        """Wait for a slot of `origin`; first come, first served. The caller bounds the wait.

        Raises:
            HostSetAsideError: at once when the host is set aside, also to those who were waiting.
        """
        host = self._host(origin)
        await self._enter(host)
        try:
            yield Slot(self, host, self.clock())
        finally:
            host.active -= 1
            self._wake(host)

    async def resolve(self, name: str) -> tuple[IPAddress, ...]:
        """Admitted addresses of `name`, from the cache where it is fresh.

        Raises:
            RefusedAddressError: the name leads to refused addresses only.
            UnresolvedHostError: it leads nowhere, or the resolver does not answer.
        """
        answer = self._answers.get(name)
        if answer is None or answer.expires <= self.clock():
            lookup = self._lookups.get(name)
            if lookup is None:
                lookup = self._lookups[name] = asyncio.create_task(self._ask(name))
            try:
                async with asyncio.timeout(self.limits.lookup_s):
                    answer = await asyncio.shield(lookup)
            except TimeoutError:
                raise UnresolvedHostError(f"{name}: the resolver does not answer") from None
        else:
            self._answers.move_to_end(name)
        if answer.error is not None:
            # Made anew for each fetch: a raised exception keeps the frames of whoever caught it.
            raise type(answer.error)(*answer.error.args)
        return answer.addresses

    async def close(self) -> None:
        """Give up the look-ups under way; their threads end when the system's resolver lets go of them."""
        lookups = list(self._lookups.values())
        for lookup in lookups:
            lookup.cancel()
        await asyncio.gather(*lookups, return_exceptions=True)

    def turn_away(self, host: _Host) -> None:
        """Send away everyone who waits for a host that was just set aside."""
        while host.waiting:
            waiter = host.waiting.popleft()
            if not waiter.done():
                waiter.set_exception(HostSetAsideError("set aside after failures"))

    def _host(self, origin: str) -> _Host:
        host = self._hosts.get(origin)
        if host is None:
            host = self._hosts[origin] = _Host(limit=min(FIRST_SLOTS, self.limits.per_host))
            if len(self._hosts) > self.limits.max_hosts:
                idle = next((key for key, known in self._hosts.items() if not known.active and known is not host), None)
                if idle is not None:
                    del self._hosts[idle]
        else:
            self._hosts.move_to_end(origin)
        return host

    async def _enter(self, host: _Host) -> None:
        if host.open_until is not None and (self.clock() < host.open_until or host.active):
            raise HostSetAsideError("set aside after failures")
        if host.active < host.limit and not host.waiting:
            host.active += 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        host.waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                host.active -= 1  # the slot came together with the cancellation: pass it on
                self._wake(host)
            else:
                with suppress(ValueError):
                    host.waiting.remove(waiter)
            raise

    def _wake(self, host: _Host) -> None:
        while host.waiting and host.active < host.limit:
            waiter = host.waiting.popleft()
            if not waiter.done():
                host.active += 1
                waiter.set_result(None)

    async def _ask(self, name: str) -> _Answer:
        try:
            async with self._lookup_threads:
                found = await _in_thread(self._lookup, name)
            answer = self._judge(name, found)
        except Exception:  # OSError as a rule; whatever it is, it is the name's fault and the task must not die unheard
            answer = self._nothing(UnresolvedHostError(f"{name}: no such host"))
        finally:
            self._lookups.pop(name, None)
        self._answers[name] = answer
        self._answers.move_to_end(name)
        if len(self._answers) > self.limits.max_hosts:
            self._answers.popitem(last=False)
        return answer

    def _judge(self, name: str, found: list[str]) -> _Answer:
        addresses = [ipaddress.ip_address(text) for text in found]
        reasons = [self._policy.refusal(name, address) for address in addresses]
        admitted = tuple(address for address, reason in zip(addresses, reasons, strict=True) if reason is None)
        if admitted:
            return _Answer(admitted, None, self.clock() + self.limits.resolution_s)
        reason = next((reason for reason in reasons if reason is not None), None)
        return self._nothing(RefusedAddressError(reason) if reason else UnresolvedHostError(f"{name}: no address"))

    def _nothing(self, error: RefusedAddressError | UnresolvedHostError) -> _Answer:
        return _Answer((), error, self.clock() + self.limits.negative_s)


async def _in_thread(lookup: Lookup, name: str) -> list[str]:
    """Run `lookup` in a daemon thread: a hung resolver must not hold up the end of the process, as a pool would."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[str]] = loop.create_future()

    def deliver(found: list[str] | None, error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(found or [])
        else:
            future.set_exception(error)

    def run() -> None:
        found: list[str] | None = None
        error: Exception | None = None
        try:
            found = lookup(name)
        except Exception as raised:  # whatever the resolver raises belongs to the fetch that asked
            error = raised
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(deliver, found, error)

    threading.Thread(target=run, name="mmcat-lookup", daemon=True).start()
    return await future
