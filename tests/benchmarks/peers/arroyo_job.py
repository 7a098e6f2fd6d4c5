"""The job on sentry-arroyo: photos in threads, batches by size and time, the model, results, offsets.

    python -m tests.benchmarks.peers.arroyo_job BOOTSTRAP GROUP INPUT OUTPUT BUNDLE ENGINE

Tuned as its documentation says:
* "Run Task in Threads": work that waits on the network runs in threads, with a bound on what is pending. While the
  model holds the main loop, photos of the next batches are fetched and decoded.
* "Batch and Unbatch": `BatchStep` by count and time in front of the model, `UnbatchStep` behind it.
* "Committing offsets": `Produce` hands a message on when it was delivered, `CommitOffsets` is the last step, and
  `ONCE_PER_SECOND` the policy.
"""

import signal
from collections.abc import Mapping
from typing import Any

from arroyo.backends.kafka import (
    KafkaConsumer,
    KafkaPayload,
    KafkaProducer,
    build_kafka_consumer_configuration,
    build_kafka_producer_configuration,
)
from arroyo.commit import ONCE_PER_SECOND
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies import CommitOffsets, Produce, RunTask, RunTaskInThreads
from arroyo.processing.strategies.abstract import ProcessingStrategyFactory
from arroyo.processing.strategies.batching import BatchStep, UnbatchStep
from arroyo.types import Topic

from mmcat.categorizer import Categorizer
from tests.benchmarks.peers.work import AHEAD, BATCH, BATCH_S, SESSION_MS, THREADS, Job, Photos, prepared, results

PENDING = AHEAD - BATCH  # fetched ahead at most, beside the batch that the model has


class Steps(ProcessingStrategyFactory[KafkaPayload]):  # type: ignore[misc]  # the peers' packages are not installed here
    """The chain, made anew at each assignment; read from the last step to the first."""

    def __init__(self, job: Job, model: Categorizer, producer: KafkaProducer) -> None:
        self._job, self._model, self._producer = job, model, producer
        self._photos = Photos()

    def create_with_partitions(self, commit: Any, partitions: Mapping[Any, int]) -> Any:
        produce = Produce(self._producer, Topic(self._job.target), CommitOffsets(commit))
        categorize = RunTask(self._categorize, UnbatchStep(produce))
        batch = BatchStep(BATCH, BATCH_S, categorize)
        return RunTaskInThreads(self._prepare, THREADS, PENDING, batch)

    def _prepare(self, message: Any) -> Any:
        return prepared(self._model, self._photos, message.payload.value)

    def _categorize(self, message: Any) -> list[Any]:
        values = message.payload
        answers = results(self._model, [one.payload for one in values])
        return [one.replace(KafkaPayload(*answer, [])) for one, answer in zip(values, answers, strict=True)]


def main() -> None:
    job = Job.given()
    brokers = {"bootstrap.servers": job.bootstrap}
    producer = KafkaProducer(build_kafka_producer_configuration(brokers, override_params={"linger.ms": 5}))
    consumer = KafkaConsumer(
        build_kafka_consumer_configuration(
            brokers,
            group_id=job.group,
            auto_offset_reset="earliest",
            override_params={"session.timeout.ms": SESSION_MS, "max.poll.interval.ms": SESSION_MS},
        )
    )
    processor = StreamProcessor(consumer, Topic(job.source), Steps(job, job.model(), producer), ONCE_PER_SECOND)
    signal.signal(signal.SIGTERM, lambda *_: processor.signal_shutdown())
    processor.run()
    producer.close()


if __name__ == "__main__":
    main()
