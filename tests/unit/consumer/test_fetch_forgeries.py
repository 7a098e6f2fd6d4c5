"""Hundreds of attempts to be led inside, through the real client: none connects, each goes through with one entry more.

Below the client, in the place of the network, is a wire that leads every address to the test's own host: a refused
attempt leaves the wire silent, its control arrives at the very address that was refused.
"""

import asyncio
import time
from collections.abc import Sequence

import pytest

from consumer.fetch import Fetched, PhotoFetcher
from consumer.fetch.addresses import AddressPolicy
from consumer.fetch.egress import Proxy
from consumer.fetch.hosts import HostLimits, Lookup
from mmcat.listing import ImageStatus
from tests.support.forgeries import FORBIDDEN, INSIDE_NAMES, MALFORMED, PORTS, Forbidden
from tests.support.scripted_host import Script, ScriptedHost, answer
from tests.support.wire import Wire, wire

__all__ = ["wire"]

PHOTO = b"\xff\xd8photo"
PUBLIC = "8.8.8.8"
PROXY = Proxy.read("http://10.9.9.9:3128")


class Everywhere(dict[str, Script]):
    """Gives the photo at every path, but for those that are written in."""

    def __missing__(self, path: str) -> Script:
        return answer(200, PHOTO)


def sent(
    wire: Wire,
    address: str,
    *,
    allow: Sequence[str] = (),
    deny: Sequence[str] = (),
    ports: Sequence[int] = (80, 443),
    lookup: Lookup = lambda _: [PUBLIC],
    redirect: str | None = None,
    proxy: Proxy | None = None,
) -> tuple[Fetched, list[str], list[str]]:
    """Fetch; returns what became of it, the addresses that were connected to, and what the host was asked."""
    scripts = Everywhere({"/first": answer(302, Location=redirect)} if redirect else {})

    async def scenario() -> tuple[Fetched, list[str]]:
        async with ScriptedHost(scripts) as host:
            wire.port = host.port
            policy = AddressPolicy(allow, deny, ports, resolved_here=proxy is None)
            forgetful = HostLimits(resolution_s=0.0, negative_s=0.0)  # every use asks the resolver again
            async with PhotoFetcher(policy, None, forgetful, proxy=proxy, lookup=lookup) as fetcher:
                return await fetcher.fetch(address, time.monotonic() + 60), host.asked

    wire.connected.clear()
    fetched, asked = asyncio.run(scenario())
    return fetched, list(wire.connected), asked


def literal(case: Forbidden) -> str:
    """The address that the odd spelling means."""
    allow = (*case.already, case.admitted_by)
    return str(AddressPolicy(allow=allow).read(f"http://{case.host}/").address)


forbidden = pytest.mark.parametrize("case", FORBIDDEN, ids=lambda case: f"{case.host} {','.join(case.already)}")


@forbidden
def test_address_in_the_event(wire: Wire, case: Forbidden) -> None:
    address = f"http://{case.host}/photo"
    refused, connected, _ = sent(wire, address, allow=case.already)
    assert (refused.status, connected) == (ImageStatus.REFUSED, [])

    control, connected, _ = sent(wire, address, allow=(*case.already, case.admitted_by))
    assert (control.body, connected) == (PHOTO, [literal(case)])


@forbidden
def test_address_that_a_redirect_leads_to(wire: Wire, case: Forbidden) -> None:
    first, then = "http://photos.example/first", f"http://{case.host}/photo"
    refused, connected, asked = sent(wire, first, redirect=then, allow=case.already)
    assert (refused.status, connected, asked) == (ImageStatus.REFUSED, [PUBLIC], ["/first"])

    control, connected, _ = sent(wire, first, redirect=then, allow=(*case.already, case.admitted_by))
    assert (control.body, connected) == (PHOTO, [PUBLIC, literal(case)])


@forbidden
def test_address_that_a_name_leads_to(wire: Wire, case: Forbidden) -> None:
    inside = literal(case)
    refused, connected, _ = sent(wire, "http://photos.example/", allow=case.already, lookup=lambda _: [inside])
    assert (refused.status, connected) == (ImageStatus.REFUSED, [])

    allow = (*case.already, case.admitted_by)
    control, connected, _ = sent(wire, "http://photos.example/", allow=allow, lookup=lambda _: [inside])
    assert (control.body, connected) == (PHOTO, [inside])


@forbidden
def test_address_that_a_name_leads_to_once_it_was_checked(wire: Wire, case: Forbidden) -> None:
    """Rebinding: the first answer is harmless, every later one is not."""
    inside = literal(case)
    answers: list[str] = []

    def rebinding(_: str) -> list[str]:
        answers.append(inside if answers else PUBLIC)
        return answers[-1:]

    refused, connected, _ = sent(wire, "http://photos.example/", allow=case.already, lookup=rebinding)
    assert (refused.status, connected) == (ImageStatus.REFUSED, [])
    assert answers == [PUBLIC, inside]

    answers.clear()
    allow = (*case.already, case.admitted_by)
    control, connected, _ = sent(wire, "http://photos.example/", allow=allow, lookup=rebinding)
    assert (control.body, connected) == (PHOTO, [inside])


@forbidden
def test_address_behind_an_egress_proxy(wire: Wire, case: Forbidden) -> None:
    address = f"http://{case.host}/photo"
    refused, connected, asked = sent(wire, address, allow=case.already, proxy=PROXY)
    assert (refused.status, connected, asked) == (ImageStatus.REFUSED, [], [])

    control, connected, asked = sent(wire, address, allow=(*case.already, case.admitted_by), proxy=PROXY)
    inside = literal(case)
    host = f"[{inside}]" if ":" in inside else inside
    assert (control.body, connected, asked) == (PHOTO, [PROXY.host], [f"http://{host}/photo"])


@pytest.mark.parametrize("name", INSIDE_NAMES)
def test_name_of_the_inside_behind_an_egress_proxy(wire: Wire, name: str) -> None:
    refused, connected, _ = sent(wire, f"http://{name}/", proxy=PROXY)
    assert (refused.status, connected) == (ImageStatus.REFUSED, [])

    admitted = AddressPolicy().read(f"http://{name}/").host
    control, connected, asked = sent(wire, f"http://{name}/", allow=(admitted,), proxy=PROXY)
    assert (control.body, connected, asked) == (PHOTO, [PROXY.host], [f"http://{admitted}/"])


@pytest.mark.parametrize("port", PORTS)
def test_port_that_is_no_photo_host_s(wire: Wire, port: int) -> None:
    address = f"http://photos.example:{port}/"
    for asked, redirect in ((address, None), ("http://photos.example/first", address)):
        assert sent(wire, asked, redirect=redirect)[0].status is ImageStatus.REFUSED
        assert sent(wire, asked, redirect=redirect, ports=(80, 443, port))[0].body == PHOTO


@pytest.mark.parametrize(("refused", "control"), MALFORMED)
def test_malformed_address_and_the_same_put_right(wire: Wire, refused: str, control: str) -> None:
    fetched, connected, _ = sent(wire, refused)
    assert (fetched.status, connected) == (ImageStatus.REFUSED, [])
    assert sent(wire, control)[0].body == PHOTO


@pytest.mark.parametrize(
    "host", ["bad.example", "a.bad.example", "BAD.example.", "bad。example", "9.9.9.9", "０x9090909"]
)
def test_denied_host_goes_through_where_nothing_denies_it(wire: Wire, host: str) -> None:
    address, denied = f"http://{host}/", ("bad.example", "9.9.9.0/24")
    for asked, redirect in ((address, None), ("http://photos.example/first", address)):
        assert sent(wire, asked, redirect=redirect, deny=denied)[0].status is ImageStatus.REFUSED
        assert sent(wire, asked, redirect=redirect)[0].body == PHOTO


def test_at_least_eighty_attempts_are_made_in_each_way() -> None:
    assert len(FORBIDDEN) >= 80
    assert len(set(FORBIDDEN)) == len(FORBIDDEN)
