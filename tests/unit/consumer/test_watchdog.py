"""A partition is silent when it stands still before its end for long enough, and nothing else is."""

from consumer.watchdog import Watchdog, sentence

ONE, OTHER = ("in", 0), ("in", 1)


def test_standing_still_before_the_end_for_long_enough_is_silence() -> None:
    watchdog = Watchdog(10)
    assert watchdog.silent({ONE: 5}, {ONE: 8}, 100) == {}
    assert watchdog.silent({ONE: 5}, {ONE: 9}, 109.9) == {}
    assert watchdog.silent({ONE: 5}, {ONE: 9}, 110) == {ONE: 4}
    assert watchdog.silent({ONE: 6}, {ONE: 9}, 111) == {}, "it moves again"


def test_an_idle_partition_that_gets_a_record_is_not_silent_at_once() -> None:
    watchdog = Watchdog(10)
    for now in range(0, 1000, 10):
        assert watchdog.silent({ONE: 5}, {ONE: 5}, now) == {}
    assert watchdog.silent({ONE: 5}, {ONE: 6}, 1000) == {}
    assert watchdog.silent({ONE: 5}, {ONE: 6}, 1010) == {ONE: 1}


def test_what_is_held_up_on_purpose_begins_anew_afterwards() -> None:
    watchdog = Watchdog(10)
    watchdog.silent({ONE: 5}, {ONE: 8}, 0)
    watchdog.silent({}, {}, 5)
    assert watchdog.silent({ONE: 5}, {ONE: 8}, 12) == {}
    assert watchdog.silent({ONE: 5}, {ONE: 8}, 22) == {ONE: 3}


def test_while_the_broker_does_not_tell_the_end_nothing_is_said_and_nothing_forgotten() -> None:
    watchdog = Watchdog(10)
    watchdog.silent({ONE: 5, OTHER: 1}, {ONE: 8, OTHER: 1}, 0)
    assert watchdog.silent({ONE: 5, OTHER: 1}, {}, 11) == {}
    assert watchdog.silent({ONE: 5, OTHER: 1}, {ONE: 8, OTHER: 1}, 12) == {ONE: 3}


def test_a_partition_of_which_nothing_was_ever_read_is_silent_too() -> None:
    watchdog = Watchdog(10)
    assert watchdog.silent({ONE: -1, OTHER: -1}, {ONE: 2, OTHER: 0}, 0) == {}
    found = watchdog.silent({ONE: -1, OTHER: -1}, {ONE: 2, OTHER: 0}, 10)
    assert found == {ONE: 2}
    assert "10 s from in 0 (2 behind)" in (sentence(found, 10) or "")
    assert sentence({}, 10) is None
