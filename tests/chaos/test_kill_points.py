"""kill -9 at each marked point, one after the other in one stream: nothing lost, only what was on its way twice."""

import signal
from pathlib import Path

import pytest

from tests.chaos.matrix import MODES
from tests.chaos.points import POINTS
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
    with Trial(site, tmp_path / mode, mode=mode) as trial:
        for point in POINTS:
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
    assert verdict.events > len(POINTS) * LISTINGS
