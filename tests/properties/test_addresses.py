"""No spelling of an address gets past the policy: what any text or number means is what is judged."""

import ipaddress
import socket

from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.fetch.addresses import AddressPolicy, RefusedAddressError
from consumer.fetch.ranges import special_range

POLICY = AddressPolicy()
UNHURRIED = settings(deadline=None)  # the machine may be busy with other tests


def admitted(address: str, policy: AddressPolicy = POLICY) -> bool:
    try:
        policy.read(address)
    except RefusedAddressError:
        return False
    return True


@st.composite
def spelled_ipv4(draw: st.DrawFn) -> tuple[int, str]:
    """An IPv4 address as a number and in one of the spellings that `inet_aton` takes."""
    number = draw(st.integers(0, 2**32 - 1) | st.sampled_from([0x7F000001, 0xA9FEA9FE, 0x0A000001, 0xC0A80101]))
    shape = draw(st.integers(1, 4))
    leading = [(number >> (24 - 8 * place)) & 255 for place in range(shape - 1)]
    parts = [*leading, number & (256 ** (5 - shape) - 1)]
    spell = st.sampled_from(["{}", "0x{:x}", "0X{:X}", "0{:o}", "000{:o}", "0x00{:x}"])
    return number, ".".join(draw(spell).format(part) for part in parts)


@UNHURRIED
@given(spelled_ipv4())
def test_every_spelling_of_an_ipv4_address_is_judged_as_that_address(case: tuple[int, str]) -> None:
    number, spelling = case
    address = ipaddress.IPv4Address(number)
    assert socket.inet_aton(spelling) == address.packed  # the spelling means this address to the system, too
    assert admitted(f"http://{spelling}/") is admitted(f"http://{address}/") is (special_range(address) is None)
    assert AddressPolicy(allow=["0.0.0.0/0"]).read(f"http://{spelling}/").address == address


@UNHURRIED
@given(st.integers(0, 2**128 - 1) | st.integers(0x2000 << 112, (0x4000 << 112) - 1))
def test_what_python_calls_not_global_is_never_admitted(number: int) -> None:
    address = ipaddress.IPv6Address(number)
    if not address.is_global or address.is_multicast or address.is_site_local:
        assert not admitted(f"http://[{address}]/")


@UNHURRIED
@given(st.integers(0, 2**32 - 1))
def test_ipv4_that_python_calls_not_global_is_never_admitted(number: int) -> None:
    address = ipaddress.IPv4Address(number)
    if not address.is_global or address.is_multicast:
        assert not admitted(f"http://{address}/")


@UNHURRIED
@given(st.integers(0, 2**32 - 1), st.sampled_from(["::ffff:0:0", "::", "64:ff9b::", "::ffff:0:0:0", "64:ff9b:1::"]))
def test_carrier_never_carries_in_what_is_refused_by_itself(number: int, carrier: str) -> None:
    inner = ipaddress.IPv4Address(number)
    outer = ipaddress.IPv6Address(int(ipaddress.IPv6Address(carrier)) | number)
    assert not admitted(f"http://[{outer}]/")
    through = admitted(f"http://[{outer}]/", AddressPolicy(allow=["::/3"]))
    assert through is (special_range(inner) is None) or number <= 1  # :: and ::1 carry nothing


@UNHURRIED
@given(
    st.text(max_size=80)
    | st.text(alphabet="htps:/@[]%.0123456789xabcdefu\\#?۰１。", max_size=40).map("http://".__add__)
)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        target = POLICY.read(text)
    except RefusedAddressError:
        return
    assert target.host.isascii()
    assert target.path.startswith("/")
    assert (target.path + target.query).isascii()
    assert target.port in (80, 443)
    again = POLICY.read(f"{target.origin}{target.path}?{target.query}")
    assert (again.origin, again.path, again.query) == (target.origin, target.path, target.query)
