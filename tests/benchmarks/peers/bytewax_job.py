"""The job on bytewax: fetches begin at the source, batches by `collect`, the model, results.

    python -m tests.benchmarks.peers.bytewax_job BOOTSTRAP GROUP INPUT OUTPUT BUNDLE ENGINE

Tuned as its documentation says:
* operator `collect`: lists "up to a size or a timeout", under one key so that a batch may hold several partitions.
* `KafkaSource(batch_size=…)`, under "Batch sizes" of its page on Kafka: larger for throughput. Nothing is written
  before all that was read at once is through the model, so two batches are read at once, the second fetched meanwhile.
* "Kafka and Recovery" of the same page: offsets on the broker by `group.id` and `enable.auto.commit`, from
  `OFFSET_STORED`. The client then commits what was read, not what was delivered: that is what it offers.
Fetches are begun where the record is read and waited for where the batch is, so photos come while the model works. One
worker: several in one process share Python's lock and would each load the model (bytewax issue 405). An epoch outlasts
the race: at its end bytewax copies the batch that is being collected, for a recovery that is not asked for, and fetches
on their way cannot be copied.
"""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.run import cli_main
from confluent_kafka import OFFSET_STORED

from mmcat.cli.benchmarks.transport import PARTITIONS
from mmcat.listing import Prepared
from tests.benchmarks.peers.work import BATCH, BATCH_S, THREADS, Job, Photos, prepared, results

READ = 2 * BATCH // PARTITIONS  # of each partition at once


def flow(job: Job) -> Dataflow:
    """The dataflow."""
    model, photos, threads = job.model(), Photos(), ThreadPoolExecutor(THREADS)

    def begin(message: KafkaSourceMessage) -> Future[Prepared]:
        return threads.submit(prepared, model, photos, message.value)

    def categorize(batch: tuple[str, list[Future[Prepared]]]) -> Iterable[KafkaSinkMessage]:
        ready = [future.result() for future in batch[1]]
        return [KafkaSinkMessage(key, value) for key, value in results(model, ready)]

    offsets = {"group.id": job.group, "enable.auto.commit": "true", "auto.offset.reset": "earliest"}
    source = KafkaSource(
        [job.bootstrap], [job.source], starting_offset=OFFSET_STORED, add_config=offsets, batch_size=READ
    )
    dataflow = Dataflow("categorize")
    records = op.input("read", dataflow, source)
    begun = op.map("fetch", records, begin)
    batches = op.collect("batch", op.key_on("together", begun, lambda _: "all"), timedelta(seconds=BATCH_S), BATCH)
    answers = op.flat_map("model", batches, categorize)
    op.output("write", answers, KafkaSink([job.bootstrap], job.target, {"linger.ms": "5"}))
    return dataflow


if __name__ == "__main__":
    cli_main(flow(Job.given()), epoch_interval=timedelta(hours=1))
