"""Slots, breaker and resolution of hosts, on a clock of the test's own."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from consumer.fetch.addresses import AddressPolicy, RefusedAddressError
from consumer.fetch.hosts import FIRST_SLOTS, PATIENCE_S, HostLimits, Hosts, HostSetAsideError, UnresolvedHostError

ORIGIN = "http://photos.example:80"


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Resolver:
    """A resolver that counts; `answers` may be changed by the test, an exception is raised."""

    def __init__(self, answers: list[str] | Exception) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __call__(self, name: str) -> list[str]:
        self.asked.append(name)
        if isinstance(self.answers, Exception):
            raise self.answers
        return self.answers


def run(scenario: Callable[[Hosts, Clock, Resolver], Awaitable[None]], **limits: float) -> None:
    async def main() -> None:
        clock, resolver = Clock(), Resolver(["8.8.8.8"])
        hosts = Hosts(AddressPolicy(), HostLimits(**limits), lookup=resolver, clock=clock)  # type: ignore[arg-type]  # ints and floats
        await scenario(hosts, clock, resolver)
        await hosts.close()

    asyncio.run(main())


async def fail(hosts: Hosts, times: int, origin: str = ORIGIN) -> None:
    for _ in range(times):
        async with hosts.slot(origin) as slot:
            slot.failed()


async def succeed(hosts: Hosts, times: int = 1, origin: str = ORIGIN) -> None:
    for _ in range(times):
        async with hosts.slot(origin) as slot:
            slot.succeeded()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Holder:
    """Takes a slot in a task of its own and holds it until told."""

    def __init__(self, hosts: Hosts, origin: str = ORIGIN) -> None:
        self.inside = False
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._hold(hosts, origin))

    async def _hold(self, hosts: Hosts, origin: str) -> None:
        async with hosts.slot(origin):
            self.inside = True
            await self.leave.wait()
        self.inside = False


def test_unknown_host_gets_few_slots_and_more_with_each_answer() -> None:
    async def scenario(hosts: Hosts, _: Clock, __: Resolver) -> None:
        holders = [Holder(hosts) for _ in range(10)]
        await settle()
        assert sum(holder.inside for holder in holders) == FIRST_SLOTS
        for holder in holders:
            holder.task.cancel()
        await settle()
        await succeed(hosts, 20)
        holders = [Holder(hosts) for _ in range(10)]
        await settle()
        assert sum(holder.inside for holder in holders) == 6
        for holder in holders:
            holder.task.cancel()
        await settle()

    run(scenario, per_host=6)


def test_slots_are_given_in_order_and_survive_cancellation() -> None:
    async def scenario(hosts: Hosts, _: Clock, __: Resolver) -> None:
        first, second, third, fourth = (Holder(hosts) for _ in range(4))
        await settle()
        assert [h.inside for h in (first, second, third, fourth)] == [True, False, False, False]
        second.task.cancel()
        first.leave.set()
        await settle()
        assert third.inside
        third.leave.set()
        fourth.task.cancel()  # in the very moment in which the slot is handed to it
        await settle()
        await asyncio.wait_for(succeed(hosts), 1)

    run(scenario, per_host=1)


def test_host_is_set_aside_after_failures_in_a_row_and_probed_by_one() -> None:
    async def scenario(hosts: Hosts, clock: Clock, _: Resolver) -> None:
        await fail(hosts, 2)
        await succeed(hosts)  # in between: the count starts again
        await fail(hosts, 3)
        with pytest.raises(HostSetAsideError):
            await succeed(hosts)
        await succeed(hosts, origin="http://other.example:80")

        clock.now += 10.0
        probe = Holder(hosts)
        await settle()
        assert probe.inside
        with pytest.raises(HostSetAsideError):
            await succeed(hosts)
        probe.leave.set()
        await settle()

        await fail(hosts, 1)  # a failed probe sets it aside again
        with pytest.raises(HostSetAsideError):
            await succeed(hosts)
        clock.now += 10.0
        await succeed(hosts, 2)  # a probe that went well lets all through

    run(scenario, failures_to_open=3, set_aside_s=10.0)


def test_those_in_line_are_sent_away_when_the_host_is_set_aside() -> None:
    async def scenario(hosts: Hosts, _: Clock, __: Resolver) -> None:
        await fail(hosts, 1)
        async with hosts.slot(ORIGIN) as slot:
            waiting = [Holder(hosts) for _ in range(3)]
            await settle()
            slot.failed()
            await settle()
            for holder in waiting:
                with pytest.raises(HostSetAsideError):
                    await holder.task

    run(scenario, per_host=1, failures_to_open=2)


def test_deadline_right_after_the_slot_is_no_failure_of_the_host() -> None:
    async def scenario(hosts: Hosts, clock: Clock, _: Resolver) -> None:
        async with hosts.slot(ORIGIN) as slot:
            slot.timed_out()
        await succeed(hosts)
        async with hosts.slot(ORIGIN) as slot:
            clock.now += PATIENCE_S
            slot.timed_out()
        with pytest.raises(HostSetAsideError):
            await succeed(hosts)

    run(scenario, failures_to_open=1)


def test_tables_are_bounded_and_hosts_in_use_are_kept() -> None:
    async def scenario(hosts: Hosts, _: Clock, resolver: Resolver) -> None:
        held = Holder(hosts)
        await settle()
        for number in range(50):
            await succeed(hosts, origin=f"http://h{number}.example:80")
            await hosts.resolve(f"h{number}.example")
        assert len(hosts._hosts) <= 5
        assert len(hosts._answers) <= 5
        assert ORIGIN in hosts._hosts
        await hosts.resolve("h49.example")
        assert len(resolver.asked) == 50
        held.leave.set()
        await settle()

    run(scenario, max_hosts=5)


def test_resolution_is_cached_for_its_time() -> None:
    async def scenario(hosts: Hosts, clock: Clock, resolver: Resolver) -> None:
        for __ in range(3):
            assert [str(address) for address in await hosts.resolve("a.example")] == ["8.8.8.8"]
        assert len(resolver.asked) == 1
        clock.now += 60.0
        resolver.answers = ["1.1.1.1"]
        assert [str(address) for address in await hosts.resolve("a.example")] == ["1.1.1.1"]

    run(scenario)


def test_failure_is_cached_for_a_shorter_time() -> None:
    async def scenario(hosts: Hosts, clock: Clock, resolver: Resolver) -> None:
        resolver.answers = OSError("no such host")
        for _ in range(3):
            with pytest.raises(UnresolvedHostError):
                await hosts.resolve("a.example")
        assert len(resolver.asked) == 1
        clock.now += 5.0
        resolver.answers = ["8.8.8.8"]
        assert await hosts.resolve("a.example")

    run(scenario)


@pytest.mark.parametrize("answers", [["10.0.0.1"], ["::1", "127.0.0.1"], ["::ffff:8.8.8.8"], ["fe80::1%lo"]])
def test_name_that_leads_inside_is_refused(answers: list[str]) -> None:
    async def scenario(hosts: Hosts, _: Clock, resolver: Resolver) -> None:
        resolver.answers = answers
        for __ in range(2):
            with pytest.raises(RefusedAddressError):
                await hosts.resolve("a.example")
        resolver.answers = [*answers, "8.8.8.8"]
        assert [str(address) for address in await hosts.resolve("b.example")] == ["8.8.8.8"]

    run(scenario)


@pytest.mark.parametrize("answers", [[], ["nonsense"], ValueError("odd")])
def test_odd_resolver_leads_nowhere(answers: list[str] | Exception) -> None:
    async def scenario(hosts: Hosts, _: Clock, resolver: Resolver) -> None:
        resolver.answers = answers
        with pytest.raises(UnresolvedHostError):
            await hosts.resolve("a.example")

    run(scenario)


def test_hung_resolver_is_asked_once_and_holds_only_its_own_name() -> None:
    release = threading.Event()

    async def scenario(hosts: Hosts, _: Clock, resolver: Resolver) -> None:
        def lookup(name: str) -> list[str]:
            resolver(name)
            if name == "hung.example":
                release.wait(10)
            return ["8.8.8.8"]

        hosts._lookup = lookup
        many = [asyncio.create_task(hosts.resolve("hung.example")) for _ in range(20)]
        assert await hosts.resolve("good.example")
        for error in await asyncio.gather(*many, return_exceptions=True):
            assert isinstance(error, UnresolvedHostError)
        assert resolver.asked.count("hung.example") == 1
        release.set()
        assert await hosts.resolve("hung.example")
        assert resolver.asked.count("hung.example") == 1

    run(scenario, lookup_s=0.1)
