"""The photo host over real HTTP: photos, validators, and every fault it can play."""

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

import pytest

from mmcat.photos import decode
from training.shop.photo_host import Body, Fault, PhotoHost, late, shop_photos
from training.shop.shop import PhotoState, Shop, ShopConfig
from training.shop.stream import is_late

SHOP = Shop(ShopConfig(absent_share=0.1, dead_share=0.1, broken_share=0.1))
PHOTO = b"\xff\xd8" + b"any bytes" * 100


@contextmanager
def host_with(fault: Fault | None = None) -> Iterator[PhotoHost]:
    with PhotoHost({"a.jpg": PHOTO}.get, faults=lambda _: fault) as host:
        yield host


def get(host: PhotoHost, name: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=10)
    try:
        connection.request(
            "GET", f"/p/{name}", headers={key.replace("_", "-"): value for key, value in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


def test_the_shops_photos_are_served_under_the_addresses_of_its_events() -> None:
    with PhotoHost(shop_photos(SHOP, px=96)) as host:
        assert host.base_url == f"http://127.0.0.1:{host.port}/p"
        for listing in (one for one in SHOP.listings(40) if one.photo_token):
            status, body, headers = get(host, f"{listing.photo_token}.jpg")
            if listing.photo_state is PhotoState.DEAD:
                assert status == 404
                continue
            assert (status, headers["Content-Type"]) == (200, "image/jpeg")
            assert body == SHOP.photo_bytes(listing, 96)
            if listing.photo_state is PhotoState.FINE:
                assert decode(body, 48).shape == (48, 48, 3)
        assert get(host, "nothing.jpg")[0] == 404


def test_a_validator_saves_the_body() -> None:
    with host_with() as host:
        status, body, headers = get(host, "a.jpg")
        assert (status, body) == (200, PHOTO)
        assert get(host, "a.jpg", If_None_Match=headers["ETag"])[:2] == (304, b"")


def test_the_last_photos_are_kept_and_no_more() -> None:
    made: list[str] = []

    def source(name: str) -> bytes:
        made.append(name)
        return PHOTO

    with PhotoHost(source, kept=2) as host:
        for name in ("a", "b", "a", "c", "a", "b"):
            get(host, name)
    assert made == ["a", "b", "c", "b"]


def test_a_late_photo_is_missing_at_first() -> None:
    tokens = [listing.photo_token for listing in SHOP.listings(40) if listing.photo_state is PhotoState.FINE]
    late_ones = {token for token in tokens if is_late(token, 0.5)}
    assert late_ones
    with PhotoHost(shop_photos(SHOP, px=64), late(0.5, 0.4)) as host:
        for token in tokens:
            assert get(host, f"{token}.jpg")[0] == (404 if token in late_ones else 200)
        token, deadline = late_ones.pop(), time.monotonic() + 10
        while get(host, f"{token}.jpg")[0] == 404:
            assert time.monotonic() < deadline


@pytest.mark.parametrize(("fault", "status"), [(Fault(missing_s=inf), 404), (Fault(status=503), 503)])
def test_an_address_can_be_refused(fault: Fault, status: int) -> None:
    with host_with(fault) as host:
        assert get(host, "a.jpg")[0] == status


def test_an_answer_can_be_slow() -> None:
    with host_with(Fault(delay_s=0.2)) as host:
        begun = time.monotonic()
        assert get(host, "a.jpg")[0] == 200
        assert time.monotonic() - begun >= 0.2


def test_garbage_and_pages_come_instead_of_photos() -> None:
    with host_with(Fault(body=Body.GARBAGE)) as host:
        status, body, headers = get(host, "a.jpg")
        assert (status, headers["Content-Type"]) == (200, "image/jpeg")
        assert body != PHOTO
    with host_with(Fault(body=Body.HTML)) as host:
        assert get(host, "a.jpg")[2]["Content-Type"].startswith("text/html")


def test_a_body_can_be_cut_off() -> None:
    with host_with(Fault(body=Body.CUT)) as host, pytest.raises(http.client.IncompleteRead):
        get(host, "a.jpg")


def test_a_body_can_have_no_end_and_the_host_still_stops() -> None:
    with host_with(Fault(body=Body.ENDLESS)) as host:
        connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=10)
        connection.request("GET", "/p/a.jpg")
        assert len(connection.getresponse().read(2_000_000)) == 2_000_000
        begun = time.monotonic()
        host.stop()
        assert time.monotonic() - begun < 10
        connection.close()


def test_a_taken_port_is_an_error_at_once() -> None:
    with host_with() as host, pytest.raises(OSError, match="address"):
        PhotoHost({"a.jpg": PHOTO}.get, port=host.port).start()


def test_a_host_that_never_started_stops_without_harm() -> None:
    PhotoHost({"a.jpg": PHOTO}.get).stop()
