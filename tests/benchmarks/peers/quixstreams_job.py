"""The job on quixstreams: a sink that fetches as records come and writes at each checkpoint.

    python -m tests.benchmarks.peers.quixstreams_job BOOTSTRAP GROUP INPUT OUTPUT BUNDLE ENGINE

Tuned as its documentation says:
* "Creating a Custom Sink": what goes out in batches is a sink; `commit_every` bounds a batch, `commit_interval` its
  age, and offsets are committed when `flush` has returned. `BaseSink`, not `BatchingSink`: that one writes each
  partition by itself, which would make four small batches of one.
* "Checkpointing": flush sinks, flush the producer, commit, in this order.
* `consumer_poll_timeout` is the batch window, or a checkpoint would wait a second for it.
Fetches begin in `add`, in threads; one producer is kept for all checkpoints.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from quixstreams import Application
from quixstreams.sinks.base import BaseSink

from mmcat.listing import Prepared
from tests.benchmarks.peers.work import BATCH, BATCH_S, SESSION_MS, THREADS, Job, Photos, prepared, results


class Categorize(BaseSink):  # type: ignore[misc]  # the peers' packages are not installed here
    """Collects what a checkpoint holds, categorizes and sends it."""

    def __init__(self, job: Job, producer: Any) -> None:
        super().__init__()
        self._model, self._producer, self._target = job.model(), producer, job.target
        self._photos, self._threads = Photos(), ThreadPoolExecutor(THREADS)
        self._begun: list[Future[Prepared]] = []

    def add(self, value: bytes, **_where: Any) -> None:
        self._begun.append(self._threads.submit(prepared, self._model, self._photos, value))

    def flush(self) -> None:
        begun, self._begun = self._begun, []
        if not begun:
            return
        for key, said in results(self._model, [future.result() for future in begun]):
            self._producer.produce(topic=self._target, key=key, value=said)
        if left := self._producer.flush(10):
            raise OSError(f"{left} results were not delivered")


def main() -> None:
    job = Job.given()
    app = Application(
        broker_address=job.bootstrap,
        consumer_group=job.group,
        auto_offset_reset="earliest",
        commit_every=BATCH,
        commit_interval=BATCH_S,
        consumer_poll_timeout=BATCH_S,
        consumer_extra_config={"session.timeout.ms": SESSION_MS, "max.poll.interval.ms": SESSION_MS},
        producer_extra_config={"linger.ms": 5},
        auto_create_topics=False,
        loglevel="WARNING",
    )
    records = app.dataframe(app.topic(job.source, value_deserializer="bytes", key_deserializer="bytes"))
    with app.get_producer() as producer:
        records.sink(Categorize(job, producer))
        app.run()


if __name__ == "__main__":
    main()
