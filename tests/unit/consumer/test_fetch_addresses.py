"""Each forbidden address is refused, and goes through with exactly one entry more: it is the rule that refuses."""

import ipaddress

import pytest

from consumer.fetch.addresses import AddressPolicy, RefusedAddressError
from consumer.fetch.ranges import embedded_ipv4, special_range
from tests.support.forgeries import FORBIDDEN, MALFORMED, Forbidden


@pytest.mark.parametrize("case", FORBIDDEN, ids=lambda case: f"{case.host} {','.join(case.already)}")
def test_forbidden_address_is_refused_and_goes_through_with_one_entry_more(case: Forbidden) -> None:
    address = f"http://{case.host}/photo.jpg"
    with pytest.raises(RefusedAddressError):
        AddressPolicy(allow=case.already).read(address)

    target = AddressPolicy(allow=(*case.already, case.admitted_by)).read(address)

    assert target.address is not None  # what is connected to is the literal that was judged


@pytest.mark.parametrize("case", FORBIDDEN, ids=lambda case: f"{case.host} {','.join(case.already)}")
def test_name_that_leads_to_a_forbidden_address_is_refused_likewise(case: Forbidden) -> None:
    literal = AddressPolicy(allow=(*case.already, case.admitted_by)).read(f"http://{case.host}/").address
    assert literal is not None

    assert AddressPolicy(allow=case.already).refusal("photos.example", literal)
    assert not AddressPolicy(allow=(*case.already, case.admitted_by)).refusal("photos.example", literal)
    assert not AddressPolicy(allow=("example",)).refusal("photos.example", literal)
    assert AddressPolicy(allow=("example",), deny=(case.admitted_by,)).refusal("photos.example", literal)


@pytest.mark.parametrize(("refused", "control"), MALFORMED)
def test_malformed_address_is_refused_and_goes_through_when_put_right(refused: str, control: str) -> None:
    policy = AddressPolicy()
    with pytest.raises(RefusedAddressError):
        policy.read(refused)
    policy.read(control)


def test_host_is_read_into_one_canonical_spelling() -> None:
    policy = AddressPolicy()
    assert policy.read("HTTP://Photos.EXAMPLE.:80/a b?c=d e#f").origin == "http://photos.example:80"
    assert policy.read("http://사진.kr/").host == "xn--vf4bi0o.kr"
    assert policy.read("http://0x8080808/").host == "8.8.8.8"
    assert policy.read("https://[2606:4700:0:0::1]/").origin == "https://[2606:4700::1]:443"
    assert policy.read("http://x.example/사진 1.jpg").path == "/%EC%82%AC%EC%A7%84%201.jpg"


def test_port_is_admitted_by_setting_only() -> None:
    assert AddressPolicy(ports=[8443]).read("https://photos.example:8443/").port == 8443
    with pytest.raises(RefusedAddressError, match="port 8443"):
        AddressPolicy().read("https://photos.example:8443/")


def test_denied_suffix_wins_over_allowed_one_and_matches_whole_labels() -> None:
    policy = AddressPolicy(allow=["example"], deny=["bad.example"])
    for denied in ("bad.example", "BAD.example.", "a.bad.example"):
        with pytest.raises(RefusedAddressError, match="denied"):
            policy.read(f"http://{denied}/")
    policy.read("http://notbad.example/")
    assert policy.refusal("notexample", ipaddress.ip_address("10.0.0.1"))


def test_refusal_never_tells_path_or_query() -> None:
    for address in ("http://127.0.0.1/path?token=secret", "http://a:22/path?token=secret", "ftp://a/path?token=secret"):
        with pytest.raises(RefusedAddressError) as refused:
            AddressPolicy().read(address)
        assert "secret" not in str(refused.value)
        assert "path" not in str(refused.value)


@pytest.mark.parametrize(
    "entry", ["", "10.0.0.0/33", "http://photos.example", "a/b", "photos.example:80", "[::1]", ".."]
)
def test_entry_that_is_neither_range_nor_suffix_is_refused_by_name(entry: str) -> None:
    with pytest.raises(ValueError, match="neither a host suffix nor a CIDR range"):
        AddressPolicy(allow=[entry])


def test_ordinary_public_addresses_are_in_no_special_range() -> None:
    for text in ("8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "223.255.255.255",
                 "2606:4700::1111", "2a00:1450::1", "2001:4860:4860::8888", "2003::1"):  # fmt: skip
        address = ipaddress.ip_address(text)
        assert special_range(address) is None, text
        assert embedded_ipv4(address) is None, text
