"""Busy shares of stages, and the line that names the bottleneck."""

import pytest

from consumer.stages import NAMES, Stages, bottleneck


def test_a_share_is_time_at_work_over_what_the_workers_could_have_worked() -> None:
    now = [0.0]
    stages = Stages({"decode": 2}, clock=lambda: now[0])
    stages.worked("decode", 1.0)
    stages.worked("decode", 1.0)
    stages.worked("model", 1.0)
    now[0] = 4.0
    shares = stages.shares()
    assert (shares["decode"], shares["model"], shares["fetch"]) == (0.25, 0.25, 0.0)


def test_each_look_counts_from_the_one_before() -> None:
    now = [0.0]
    stages = Stages({}, clock=lambda: now[0])
    stages.worked("model", 1.0)
    now[0] = 1.0
    assert stages.shares()["model"] == 1.0
    now[0] = 2.0
    assert stages.shares()["model"] == 0.0


def test_work_that_began_before_the_last_look_is_never_more_than_all_the_time() -> None:
    now = [0.0]
    stages = Stages({}, clock=lambda: now[0])
    stages.worked("fetch", 9.0)
    now[0] = 1.0
    assert stages.shares()["fetch"] == 1.0


@pytest.mark.parametrize(
    ("shares", "held", "lag", "paused", "said"),
    [
        ({"take": 0.2, "model": 0.97}, 2000, 9e6, True, "model is the bottleneck: 97% busy, 2,000 of 2,000 listings"),
        ({"take": 0.2, "fetch": 0.8}, 500, 0, False, "fetch is the bottleneck: 80% busy, 500 of 2,000 listings held"),
        ({"take": 0.5, "publish": 0.45, "model": 0.4}, 900, 9e6, False, "the interpreter is the bottleneck: take and"),
        ({"take": 0.5, "model": 0.6, "decode": 0.6}, 900, 0, False, "no bottleneck: waiting for events"),
        ({"take": 0.1, "model": 0.2}, 1900, 9e6, True, "the broker's acknowledgements are the bottleneck"),
        ({"take": 0.1, "model": 0.2}, 100, 9e6, True, "memory is the bottleneck: limits.in_flight_bytes are held"),
        ({"take": 0.1, "model": 0.2}, 100, 9e6, False, "polling is the bottleneck: 9,000,000 events wait in the topic"),
        ({"take": 0.1, "model": 0.2}, 100, 150, False, "no bottleneck: waiting for events, busiest stage model 20%"),
    ],
)
def test_one_line_names_what_holds_the_stream_up(
    shares: dict[str, float], held: int, lag: float, paused: bool, said: str
) -> None:
    found = bottleneck(shares, held, 2000, lag, paused=paused)
    assert found.line.startswith(said)
    assert found.name in NAMES
    assert (found.name == "none") == said.startswith("no bottleneck")
