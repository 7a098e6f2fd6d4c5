"""The view on a real Valkey: the rank rule, markers, positions, and what it refuses."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from consumer.errors import ConfigError, ViewError
from consumer.rank import Rank
from consumer.view import FROM_BEGINNING, Applied, Positions, Ranked, View, ViewAwayError
from mmcat.cli.servers import LocalValkey
from tests.support.waiting import eventually

LARGEST = 2**53 - 1
TOPIC = "products.categorized"


@pytest.fixture
def view(valkey_url: str, view_prefix: str) -> Iterator[View]:
    view = View(valkey_url, view_prefix, marker_life_s=3600)
    view.connect()
    yield view
    view.close()


@pytest.fixture
def raw(valkey_url: str) -> Iterator["redis.Redis"]:
    client = redis.Redis.from_url(valkey_url)
    yield client
    client.close()


def result(order: int, body: bytes = b"{}", authority: int = 0, generation: int = 1, complete: int = 2) -> Ranked:
    return Ranked("p1", Rank(order, authority, generation, complete), body)


def deletion(order: int) -> Ranked:
    return Ranked("p1", Rank(order, 2, 0, 0), None)


def test_reader_needs_one_hget(view: View, raw: "redis.Redis", view_prefix: str) -> None:
    assert view.apply([result(7, b'{"a":1}')]) == [Applied.WRITTEN]
    key = f"{view_prefix}:product:{{p1}}"
    assert raw.hget(key, "result") == b'{"a":1}'
    assert raw.hget(key, "rank") == b"7,0,1,2"
    assert raw.ttl(key) == -1


def test_connecting_again_and_again_uses_nothing_up(view: View) -> None:
    for _ in range(150):  # redis's pool makes a hundred connections and no more
        view.connect()
    assert view.apply([result(7)]) == [Applied.WRITTEN]


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ((1, 0, 0, 0), (2, 0, 0, 0)),
        ((9, 0, 0, 0), (10, 0, 0, 0)),  # as numbers, not as text
        ((1, 2, 9, 2), (2, 0, 0, 0)),
        ((1, 0, 9, 2), (1, 1, 0, 0)),
        ((1, 1, 9, 2), (1, 2, 0, 0)),
        ((1, 0, 1, 2), (1, 0, 2, 0)),
        ((1, 0, 1, 0), (1, 0, 1, 1)),
        ((1, 0, 1, 1), (1, 0, 1, 2)),
        ((LARGEST - 1, 0, LARGEST, 2), (LARGEST, 0, 0, 0)),
        ((LARGEST, 0, LARGEST - 1, 2), (LARGEST, 0, LARGEST, 0)),
        ((1_795_000_000_000, 0, 1_795_000_000_001, 2), (1_795_000_000_001, 0, 1, 0)),
    ],
)
def test_higher_rank_stays_whatever_the_order_of_arrival(
    view: View, lower: tuple[int, ...], higher: tuple[int, ...]
) -> None:
    low, high = Ranked("a", Rank(*lower), b"low"), Ranked("a", Rank(*higher), b"high")
    assert view.apply([low, high, low]) == [Applied.WRITTEN, Applied.WRITTEN, Applied.OUTRANKED]
    assert view.get("a") == (Rank(*higher), b"high")


def test_of_equal_ranks_the_later_record_stays(view: View) -> None:
    assert view.apply([result(1, b"first"), result(1, b"second")]) == [Applied.WRITTEN, Applied.WRITTEN]
    assert view.get("p1") == (Rank(1, 0, 1, 2), b"second")


def test_deletion_leaves_a_marker_that_expires(view: View, raw: "redis.Redis", view_prefix: str) -> None:
    assert view.apply([result(1), deletion(2), result(1, b"old")]) == [
        Applied.WRITTEN,
        Applied.DELETED,
        Applied.OUTRANKED,
    ]
    assert view.get("p1") == (Rank(2, 2, 0, 0), None)
    life_s = raw.ttl(f"{view_prefix}:product:{{p1}}")
    assert isinstance(life_s, int)
    assert 3590 <= life_s <= 3600


def test_registration_after_a_deletion_stays_for_good(view: View, raw: "redis.Redis", view_prefix: str) -> None:
    view.apply([deletion(2), result(3, b"again")])
    assert view.get("p1") == (Rank(3, 0, 1, 2), b"again")
    assert raw.ttl(f"{view_prefix}:product:{{p1}}") == -1


def test_new_model_does_not_bring_a_deleted_product_back(view: View) -> None:
    assert view.apply([deletion(2), result(2, generation=LARGEST)]) == [Applied.DELETED, Applied.OUTRANKED]


def test_marker_that_expired_is_gone(valkey_url: str, view_prefix: str) -> None:
    view = View(valkey_url, view_prefix, marker_life_s=0.001)
    view.connect()
    view.apply([result(1), deletion(2)])
    eventually(lambda: view.get("p1") is None, "the marker is gone", every_s=0.001)
    view.close()


def test_what_stands_where_decides_whether_an_outranked_record_is_the_topic_s_last_word(view: View) -> None:
    def at(offset: int, order: int, body: bytes = b"", partition: int = 0) -> Ranked:
        return Ranked("p1", Rank(order, 0, 1, 2), body, partition, offset, [("mmcat-rank", b"x"), ("ce_id", b"\xff")])

    assert view.apply([at(5, 9, b"winner"), at(3, 1), at(7, 1), at(8, 1, partition=1)]) == [
        Applied.WRITTEN,
        Applied.OUTRANKED,  # the winner stands behind it
        Applied.STALE,
        Applied.STALE,  # in another partition nothing stands behind it
    ]
    assert view.apply([at(9, 9, b"repair"), at(7, 1), at(5, 9, b"winner")]) == [
        Applied.WRITTEN,
        Applied.OUTRANKED,
        Applied.OUTRANKED,  # of equal ranks the later in the topic, whoever reads the earlier late
    ]
    (held,) = view.held(["p1"])
    assert held is not None
    assert (held.result, held.at, held.headers) == (b"repair", (0, 9), [("ce_id", b"\xff")])


def test_another_generation_is_noticed_at_once_by_who_writes_and_by_who_asks(
    view: View, raw: "redis.Redis", view_prefix: str
) -> None:
    view.begin_positions(TOPIC, Positions("id", 1, {0: 0}))
    assert view.move_positions(TOPIC, "id", {0: (0, 1)})
    raw.set(f"{view_prefix}:current", f"{view_prefix}:gen1")
    assert not view.move_positions(TOPIC, "id", {0: (1, 2)})
    with pytest.raises(ViewAwayError, match="rebuilt"):
        view.get("p1")
    view.connect()
    assert view.generation == f"{view_prefix}:gen1"
    assert view.positions(TOPIC) is None
    view.apply([result(1)])
    assert raw.exists(f"{view_prefix}:gen1:product:{{p1}}")


def test_many_products_in_one_trip_and_missing_ones_are_none(view: View) -> None:
    ids = [f"제품 {number} {{x}}" for number in range(300)]
    view.apply([Ranked(product, Rank(number, 0, 0, 2), str(number).encode()) for number, product in enumerate(ids)])
    found = view.mget([*ids, "never seen"])
    assert found[:-1] == [(Rank(number, 0, 0, 2), str(number).encode()) for number in range(300)]
    assert found[-1] is None
    assert view.apply([]) == []
    assert view.mget([]) == []


def test_key_of_another_kind_does_not_stop_the_view(view: View, raw: "redis.Redis", view_prefix: str) -> None:
    raw.set(f"{view_prefix}:product:{{p1}}", "somebody's text")
    assert view.apply([result(1)]) == [Applied.WRITTEN]


def test_fields_that_somebody_else_wrote_are_held_by_nobody(view: View, raw: "redis.Redis", view_prefix: str) -> None:
    view.apply([result(1)])
    for field, text in (("rank", "high"), ("headers", '"text"'), ("at", "0:x")):
        raw.hset(f"{view_prefix}:product:{{p1}}", field, text)
        assert view.held(["p1"]) == [None]


def test_writers_at_once_end_with_the_highest_rank(valkey_url: str, view_prefix: str) -> None:
    def write(worker: int) -> None:
        view = View(valkey_url, view_prefix, 3600)
        view.connect()
        for start in range(0, 200, 20):
            view.apply([result(order * 4 + worker, b"%d" % worker) for order in range(start, start + 20)])
        view.close()

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    view = View(valkey_url, view_prefix, 3600)
    view.connect()
    assert view.get("p1") == (Rank(199 * 4 + 3, 0, 1, 2), b"3")
    view.close()


def test_positions_begin_once_and_move_on_from_where_they_stand(view: View) -> None:
    assert view.positions(TOPIC) is None
    view.begin_positions(TOPIC, Positions("id1", 2, {0: FROM_BEGINNING, 1: FROM_BEGINNING}))
    assert view.move_positions(TOPIC, "id1", {0: (FROM_BEGINNING, 5)})
    view.begin_positions(TOPIC, Positions("id2", 3, {0: FROM_BEGINNING}))  # what stands there stays
    assert view.positions(TOPIC) == Positions("id1", 2, {0: 5, 1: FROM_BEGINNING})


def test_positions_that_somebody_else_moved_or_that_are_gone_stay_as_they_are(
    view: View, raw: "redis.Redis", view_prefix: str
) -> None:
    view.begin_positions(TOPIC, Positions("id1", 2, {0: 3, 1: 4}))
    assert not view.move_positions(TOPIC, "id1", {1: (4, 9), 0: (2, 9)})
    assert not view.move_positions(TOPIC, "id2", {0: (3, 9)})
    assert not view.move_positions(TOPIC, "id1", {2: (0, 9)})
    assert view.positions(TOPIC) == Positions("id1", 2, {0: 3, 1: 4})
    assert view.move_positions(TOPIC, "id1", {})
    raw.delete(f"{view_prefix}:positions:{TOPIC}")
    assert not view.move_positions(TOPIC, "id1", {0: (3, 9)})
    assert not view.move_positions(TOPIC, "id1", {})
    assert view.positions(TOPIC) is None


def test_after_any_error_nothing_goes_over_the_old_connection(view: View, raw: "redis.Redis") -> None:
    """Positions must never reach a server that did not get the values before them."""
    view.apply([result(1)])
    raw.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(ViewAwayError):
        view.apply([result(2)])
    with pytest.raises(ViewAwayError, match="not connected"):
        view.move_positions(TOPIC, "", {})
    view.connect()
    assert view.apply([result(2)]) == [Applied.WRITTEN]


def test_scripts_that_the_server_forgot_are_loaded_again_on_the_next_connection(view: View, raw: "redis.Redis") -> None:
    raw.script_flush()
    with pytest.raises(ViewAwayError):
        view.apply([result(1)])
    view.connect()
    assert view.apply([result(1)]) == [Applied.WRITTEN]


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random", "volatile-lfu"])
def test_evicting_policy_is_refused(policy: str, tmp_path: Path) -> None:
    with LocalValkey(logs=tmp_path) as server:
        client = redis.Redis.from_url(server.url)
        client.config_set("maxmemory-policy", policy)
        view = View(server.url, "p", 60)
        with pytest.raises(ViewError, match=rf"maxmemory-policy is {policy}; set it to noeviction"):
            view.connect()
        client.config_set("maxmemory-policy", "noeviction")
        view.connect()
        view.close()
        client.close()


def test_full_server_takes_no_positions_past_values_it_did_not_take(tmp_path: Path) -> None:
    with LocalValkey(logs=tmp_path) as server:
        client = redis.Redis.from_url(server.url)
        view = View(server.url, "p", 60)
        view.connect()
        client.config_set("maxmemory", 1)
        with pytest.raises(ViewAwayError, match="maxmemory"):
            view.apply([result(1, b"x" * 1000)])
        client.config_set("maxmemory", 0)
        view.connect()
        assert view.apply([result(1)]) == [Applied.WRITTEN]
        view.close()
        client.close()


def test_nobody_there_is_away_and_a_wrong_address_is_a_setting() -> None:
    view = View("redis://127.0.0.1:1/0", "p", 60)
    with pytest.raises(ViewAwayError):
        view.connect()
    with pytest.raises(ConfigError) as refused:
        View("memcached://user:secret@host", "p", 60)
    assert "secret" not in str(refused.value)
