"""How many machines, partitions and bytes a load needs: arithmetic, from figures that were measured.

    python -m tests.benchmarks.capacity [--per-day 20e6] [--peak 10] [--products 1.5e9] [--backfill-days 30] [--json]
    python -m tests.benchmarks.capacity --cpu-rate 5.8      # with what your own machines did

The defaults are what docs/capacity.md says, with where each comes from; every one is an option. Nothing is run here:
tests.benchmarks.engine measures the rate of a core, tests.benchmarks.record_sizes the bytes.
"""

import argparse
import json
import math
from dataclasses import asdict, dataclass, fields, replace

DAY_S = 86_400
GIB, MB = 2**30, 1e6
SHARES = ("review_share", "retry_share", "deleted_share")
HEAD = f"{'':<10} {'listings/s':>10} {'cores':>8} {'instances':>10} {'GPUs':>6} {'photos MB/s':>12} {'Kafka MB/s':>11}"
VERIFY_BYTES = (70, 300)  # of each product, and of each of one partition more (decision 0012)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is known, or assumed.

    Args:
        per_day: events registered a day; the mean is this over 86,400 s.
        peak: the busiest seconds over the mean.
        products: that the catalogue holds: in the view, at rest in the output topic, and to be backfilled.
        backfill_days: that a backfill of all of them may take.
        cpu_rate: listings a second and core of the CPU engine (ResNet50 at 224 px, BERT-base, six blocks, bf16).
        slow_rate: the same where the CPU has no bf16 (float32): partitions are planned for these machines too.
        host_ms: of a core for each listing beside the model: photo fetched and decoded, event taken, result sent.
        gpu_rate: listings a second and GPU, one process each. An assumption: none was measured.
        cores: of a CPU instance.
        busy: share of its rate that an instance is planned for; the rest is for the loss of a zone and for restarts.
        photo_bytes: of a photo as it is fetched.
        event_bytes, result_bytes: of a record's value as JSON.
        event_kept_bytes, result_kept_bytes: of a record on a broker's disk, lz4 and headers included.
        view_product_bytes, view_marker_bytes: of a product, and of a deletion that is remembered, in Redis.
        replication: copies of each partition.
        retention_days: of the input, review, retry and dead-letter topics.
        review_share: of results that are copied to the review topic.
        retry_share: of events whose photo comes late.
        deleted_share: of events that are deletions.
        marker_days: that a deletion is remembered.
    """

    per_day: float = 20e6
    peak: float = 10
    products: float = 1.5e9
    backfill_days: float = 30
    cpu_rate: float = 26
    slow_rate: float = 7.3
    host_ms: float = 3.6
    gpu_rate: float = 1_000
    cores: float = 16
    busy: float = 0.7
    photo_bytes: float = 118_000
    event_bytes: float = 297
    result_bytes: float = 1_510
    event_kept_bytes: float = 117
    result_kept_bytes: float = 380
    view_product_bytes: float = 2_136
    view_marker_bytes: float = 600
    replication: float = 3
    retention_days: float = 7
    review_share: float = 0.15
    retry_share: float = 0.05
    deleted_share: float = 0.02
    marker_days: float = 9


@dataclass(frozen=True, slots=True)
class Need:
    """What a rate of listings needs.

    Args:
        rate: listings a second.
        cores: at `busy`.
        instances: of `cores` each, rounded up.
        gpus: at `busy`, by the assumed rate.
        photo_bytes_s: fetched a second.
        kafka_bytes_s: written to brokers a second, with all copies, as they are kept.
    """

    rate: float
    cores: float
    instances: int
    gpus: int
    photo_bytes_s: float
    kafka_bytes_s: float


@dataclass(frozen=True, slots=True)
class Capacity:
    """Everything that is needed; bytes with all copies. `…_plain` is the same without compression: at most.

    Args:
        partitions: of the topics: a fifth more than slow instances at the peak, as a multiple of 16.
        growing_bytes: of what is kept for `retention_days`: input, review, retries.
        resting_bytes: of the output topic, compacted: a result of each product, and a day that is not compacted yet.
        view_bytes: of Redis; twice that while `mmcat cache rebuild` runs.
        verify_bytes: that `mmcat cache verify` holds.
    """

    mean: Need
    peak: Need
    backfill: Need
    partitions: int
    growing_bytes: float
    growing_bytes_plain: float
    resting_bytes: float
    resting_bytes_plain: float
    view_bytes: float
    verify_bytes: float


def capacity(given: Inputs) -> Capacity:
    """The arithmetic."""
    mean, peak = given.per_day / DAY_S, given.peak * given.per_day / DAY_S
    slow = need(replace(given, cpu_rate=min(given.cpu_rate, given.slow_rate)), peak)
    partitions = 16 * math.ceil(1.2 * slow.instances / 16)
    deletions = given.per_day * given.deleted_share * given.marker_days
    return Capacity(
        mean=need(given, mean),
        peak=need(given, peak),
        backfill=need(given, given.products / (given.backfill_days * DAY_S)),
        partitions=partitions,
        growing_bytes=_growing(given, given.event_kept_bytes, given.result_kept_bytes),
        growing_bytes_plain=_growing(given, given.event_bytes, given.result_bytes),
        resting_bytes=given.replication * given.result_kept_bytes * (given.products + given.per_day),
        resting_bytes_plain=given.replication * given.result_bytes * (given.products + given.per_day),
        view_bytes=given.products * given.view_product_bytes + deletions * given.view_marker_bytes,
        verify_bytes=given.products * (VERIFY_BYTES[0] + VERIFY_BYTES[1] / partitions),
    )


def need(given: Inputs, rate: float) -> Need:
    """What so many listings a second need."""
    cores = rate * (1 / given.cpu_rate + given.host_ms / 1000) / given.busy
    written = given.event_kept_bytes * (1 + given.retry_share) + given.result_kept_bytes * (1 + given.review_share)
    return Need(
        rate=rate,
        cores=cores,
        instances=math.ceil(cores / given.cores),
        gpus=math.ceil(rate / (given.gpu_rate * given.busy)),
        photo_bytes_s=rate * given.photo_bytes,
        kafka_bytes_s=rate * written * given.replication,
    )


def _growing(given: Inputs, event: float, result: float) -> float:
    a_day = given.per_day * (event * (1 + given.retry_share) + result * given.review_share)
    return given.replication * given.retention_days * a_day


def table(found: Capacity) -> str:
    """For people."""
    lines = [HEAD]
    for name, one in (("mean", found.mean), ("peak", found.peak), ("backfill", found.backfill)):
        lines.append(
            f"{name:<10} {one.rate:>10,.0f} {one.cores:>8,.0f} {one.instances:>10,} {one.gpus:>6,} "
            f"{one.photo_bytes_s / MB:>12,.0f} {one.kafka_bytes_s / MB:>11,.2f}"
        )
    growing, resting = found.growing_bytes_plain / GIB, found.resting_bytes_plain / GIB
    lines += [
        "",
        f"partitions of each topic               {found.partitions:>8,}",
        f"input, review, retries, GiB on brokers {found.growing_bytes / GIB:>8,.0f}   uncompressed {growing:,.0f}",
        f"output topic at rest, GiB on brokers   {found.resting_bytes / GIB:>8,.0f}   uncompressed {resting:,.0f}",
        f"view in Redis, GiB                     {found.view_bytes / GIB:>8,.0f}   twice while it is rebuilt",
        f"mmcat cache verify, GiB                {found.verify_bytes / GIB:>8,.0f}",
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Print the table of what is given."""
    parser = argparse.ArgumentParser(description="Machines, partitions and bytes for a load.")
    for field in fields(Inputs):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=float, default=field.default)
    parser.add_argument("--json", action="store_true")
    given = vars(parser.parse_args(arguments))
    as_json = given.pop("json")
    for name, value in given.items():
        share = name in SHARES
        if not (0 <= value <= 1 if share else value > 0):
            parser.error(f"--{name.replace('_', '-')} must be {'from 0 to 1' if share else 'above 0'}, not {value:g}")
    found = capacity(Inputs(**given))
    print(json.dumps(asdict(found)) if as_json else table(found))


if __name__ == "__main__":
    main()
