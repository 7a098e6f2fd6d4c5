"""kill -9 at each marked point, one after the other in one stream: nothing lost, only what was on its way twice."""

import signal
from pathlib import Path

import pytest

from tests.chaos.points import MODES, POINTS, modes_of
from tests.chaos.site import Site
from tests.chaos.trial import DRAIN_S, Trial

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

LISTINGS = 32
SLOWLY = {"MMCAT_TEST_MODEL_MS": "2000"}
"""So that work is in flight for long enough to take a partition away."""


@pytest.mark.parametrize("mode", MODES)
def test_killed_once_at_every_point_it_loses_nothing_and_repeats_only_what_was_on_its_way(
    mode: str, site: Site, tmp_path: Path
) -> None:
    points = [point for point in POINTS if mode in modes_of(point)]
    with Trial(site, tmp_path / mode, mode=mode) as trial:
        for point in points:
            trial.send(LISTINGS)
            in_revoke = point == "in_revoke"
            service = trial.service("a", strike=f"{point}:1", **(SLOWLY if in_revoke else {}))
            if in_revoke:
                service.until(trial.in_flight, "work is in flight", DRAIN_S)
                with trial.intruder():
                    service.process.wait(DRAIN_S)
            assert service.process.wait(DRAIN_S) == -signal.SIGKILL
            strike = trial.evidence().strikes[-1]
            assert strike.point == point
            assert strike.in_flight > 0
        trial.service("a")
        verdict = trial.reckon(compact=True)
    assert verdict.objections == []
    assert verdict.events > len(points) * LISTINGS


def test_what_a_member_gives_up_is_committed_at_once(site: Site, tmp_path: Path) -> None:
    """A last commit that comes late, after the next owner's, takes the group back."""
    with Trial(site, tmp_path / "given-up") as trial:
        service = trial.service("a")
        service.wait_ready()
        trial.load(4 * LISTINGS, rate=40)
        trial.wait_busy(committed=5)
        with trial.intruder():
            said = service.log.read_text(encoding="utf-8")
        verdict = trial.reckon(replay=False)
    assert '"revoked"' in said
    assert "_TIMED_OUT" not in said
    assert verdict.objections == []
