"""The oracle is proven by broken services: each breaks one promise in its process, and the oracle must object to it.

Whatever the test does, the same load through the whole service passes in test_kill_points.py.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.mutations import MUTATIONS
from tests.chaos.oracle import Verdict
from tests.chaos.photos import late_and_never
from tests.chaos.site import Site
from tests.chaos.trial import DRAIN_S, Trial
from tests.support.waiting import eventually
from training.shop.photo_host import Fault

pytestmark = [pytest.mark.integration, pytest.mark.slow]

LISTINGS = 64
PATIENT_S = 30.0


def _work_through(trial: Trial) -> Verdict:
    """A calm stream is enough to see it."""
    trial.send(LISTINGS)
    trial.service("a")
    return trial.reckon(replay=False)


def _kill_in_the_middle(trial: Trial) -> Verdict:
    """Seen by whoever takes over."""
    trial.send(4 * LISTINGS)
    service = trial.service("a", MMCAT_TEST_MODEL_MS="300")
    service.until(lambda: trial.watch.committed() > 0, "something is committed", DRAIN_S)
    service.kill()
    return _taken_over(trial)


def _give_partitions_up(trial: Trial) -> Verdict:
    """A slow member has to give partitions up with work in flight; a quick one takes them over."""
    trial.send(4 * LISTINGS)
    slowly = {"MMCAT_TEST_MODEL_MS": "1000", "MMCAT_BATCH__MAX_LISTINGS": "2", "MMCAT_REVOKE_S": "0.1"}
    slow = trial.service("a", **slowly)  # half a minute for the partition that it polled first
    slow.until(lambda: trial.in_flight() > 2 * LISTINGS, "most is in flight", DRAIN_S)
    quick = trial.service("b", MMCAT_TEST_MUTATION="")
    quick.until(lambda: quick.metric("mmcat_listings_total", outcome="result"), "the quick one works", DRAIN_S)
    worked = slow.metric("mmcat_batch_listings_count") or 0.0
    slow.until(lambda: (slow.metric("mmcat_batch_listings_count") or 0.0) >= worked + 4, "the slow one too", DRAIN_S)
    slow.kill()
    return _taken_over(trial)


def _stall_and_come_back(trial: Trial) -> Verdict:
    """A slow member is stopped for longer than its session with much unfinished; another one does all of its work."""
    stalled = trial.service("a", MMCAT_TEST_MODEL_MS="1000", MMCAT_BATCH__MAX_LISTINGS="2")
    trial.service("b", MMCAT_TEST_MUTATION="").wait_ready()
    stalled.wait_ready()
    while not _has_work(trial):  # ready is also who holds no partition yet
        trial.send(LISTINGS)
    stalled.stall()
    trial.settle()
    stalled.resume()
    back = len(trial.watch.snapshots)

    def went_back() -> bool:
        later = trial.watch.snapshots[back:]
        return any(sum(one.committed.values()) < sum(later[0].committed.values()) for one in later)

    eventually(went_back, "a commit went back", DRAIN_S)
    return trial.reckon(replay=False, settle=False)


def _kill_before_a_gap_is_closed(trial: Trial) -> Verdict:
    """Photos hold the offsets back while all else is finished; who comes after the kill works all of it."""
    trial.mode, trial.photo_faults = "exactly_once", lambda _: Fault(delay_s=PATIENT_S)
    patiently = {"MMCAT_PHOTO__DEADLINE_S": str(2 * PATIENT_S), "MMCAT_PHOTO__SILENCE_TIMEOUT_S": str(2 * PATIENT_S)}
    patiently["MMCAT_KAFKA__MAX_POLL_INTERVAL_MS"] = "120000"
    trial.send(LISTINGS)
    service = trial.service("a", **patiently)
    most = LISTINGS / 2  # three in four have no photo
    service.until(lambda: (service.metric("mmcat_batch_listings_sum") or 0.0) > most, "most is worked", DRAIN_S)
    worked = len(trial.watch.snapshots)

    def committed() -> bool:
        done = service.metric("mmcat_listings_total", outcome="result") or 0.0
        return done > most or len(trial.watch.snapshots) > worked + 20  # it waits for the photos, as it should

    service.until(committed, "most is committed, or nothing is", DRAIN_S)
    service.kill()
    trial.photo_faults = late_and_never
    trial.service("a", MMCAT_TEST_MUTATION="")
    return trial.reckon(replay=False)


def _ask_an_empty_view(trial: Trial) -> Verdict:
    """A replay beside a view that is not written yet publishes what is outdated; then the view reads it all."""
    trial.send(LISTINGS)
    service = trial.service("a", MMCAT_VIEW__ENABLED="false")
    trial.settle(view=False)
    trial.replay()
    service.terminate()
    trial.service("a")
    return trial.reckon(replay=False)


def _has_work(trial: Trial) -> bool:
    """Whether the first member soon has more in flight than photos that are late can be."""
    try:
        eventually(lambda: trial.in_flight() > LISTINGS // 4, "work", 2.0)
    except AssertionError:
        return False
    return True


def _taken_over(trial: Trial) -> Verdict:
    trial.service("whole", MMCAT_TEST_MUTATION="")
    return trial.reckon(replay=False)


SEEN: Final[dict[str, tuple[Callable[[Trial], Verdict], str]]] = {
    "commit_early": (_kill_in_the_middle, "commits"),
    "drop_one": (_work_through, "outcomes"),
    "skip_revoked_check": (_give_partitions_up, "order"),
    "commit_after_lost": (_stall_and_come_back, "commits"),
    "transaction_past_the_gap": (_kill_before_a_gap_is_closed, "duplicates"),
    "repair_skipped": (_ask_an_empty_view, "ranks"),
    "ranks_compared_wrongly": (_work_through, "view"),
    "tombstone_without_rank": (_work_through, "ranks"),
    "completeness_ignored": (_work_through, "ranks"),
    "marker_expired_early": (_work_through, "view"),
}
"""Under which circumstances a mutation shows, and which promise the oracle says is broken."""


def test_every_mutation_is_tried() -> None:
    assert set(SEEN) == set(MUTATIONS)


@pytest.mark.parametrize("mutation", SEEN)
def test_the_oracle_objects_to(mutation: str, site: Site, tmp_path: Path) -> None:
    happens, promise = SEEN[mutation]
    with Trial(site, tmp_path / mutation, mutation=mutation) as trial:
        verdict = happens(trial)
    assert promise in verdict.promises, verdict.objections or "the oracle had nothing to object to"


@pytest.mark.parametrize("happens", [_kill_before_a_gap_is_closed, _ask_an_empty_view])
def test_the_whole_service_passes_where_these_mutations_show(
    happens: Callable[[Trial], Verdict], site: Site, tmp_path: Path
) -> None:
    """The others' circumstances are those of test_kill_points.py."""
    with Trial(site, tmp_path / "whole") as trial:
        assert happens(trial).objections == []
