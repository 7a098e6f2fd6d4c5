"""A tally shows what prometheus_client's own histogram of the same values shows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from consumer.tally import Tally

BOUNDS = (0.5, 1, 2.5, 10)


@given(st.lists(st.lists(st.sampled_from([0.0, 0.5, 0.7, 1.0, 2.5, 3.0, 10.0, 99.0]), max_size=5), max_size=5))
def test_it_is_the_histogram_of_all_that_it_was_given(batches: list[list[float]]) -> None:
    registry, theirs = CollectorRegistry(), CollectorRegistry()
    tally = Tally("seconds", "How long", BOUNDS, registry)
    histogram = Histogram("seconds", "How long", buckets=BOUNDS, registry=theirs)
    for batch in batches:
        tally.observe_all(batch)
        for one in batch:
            histogram.observe(one)
    (ours,), (other,) = registry.collect(), theirs.collect()
    shown = {(sample.name, *sample.labels.values()): sample.value for sample in ours.samples}
    wanted = {(sample.name, *sample.labels.values()): sample.value for sample in other.samples}
    assert shown == pytest.approx({name: one for name, one in wanted.items() if name[0] != "seconds_created"})
