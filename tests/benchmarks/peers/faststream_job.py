"""The job on faststream (Confluent's client): a batch subscriber, photos in its event loop, the model in a thread.

    python -m tests.benchmarks.peers.faststream_job BOOTSTRAP GROUP INPUT OUTPUT BUNDLE ENGINE

Tuned as its documentation says:
* "Batch Subscriber": `batch=True` with `max_records`; `polling_interval` is the longest wait for a full batch.
* "Consuming Acknowledgements": `AckPolicy.NACK_ON_ERROR` with a group commits after the handler, at least once;
  `max_workers` is for single messages that are committed before they are handled, so it cannot be had with this.
* handlers are coroutines: photos of a batch are gathered, and what computes leaves the loop by a thread.
* "Publishing in Batches": the results of a batch in one call, each with its key.
"""

import asyncio
import json
from typing import Any

import aiohttp
from faststream import AckPolicy, FastStream
from faststream.confluent import KafkaBroker, KafkaPublishMessage

from mmcat.categorizer import Categorizer
from mmcat.listing import Prepared
from tests.benchmarks.peers.work import BATCH, BATCH_S, FETCHES, PHOTO_S, SESSION_MS, Job, listing, results


async def prepared(session: aiohttp.ClientSession, model: Categorizer, value: bytes) -> Prepared:
    """An event's bytes to what the model takes: parsed, its photo fetched, and decoded in a thread."""
    event = json.loads(value)
    async with session.get(event["image_url"]) as answer:
        answer.raise_for_status()
        photo = await answer.read()
    return await asyncio.to_thread(model.prepare, listing(event, photo))


async def main() -> None:
    job = Job.given()
    model = job.model()
    broker = KafkaBroker(job.bootstrap, logger=None)
    connector = aiohttp.TCPConnector(limit=FETCHES)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(PHOTO_S)) as session:

        async def categorize(values: list[Any]) -> None:
            ready = await asyncio.gather(*(prepared(session, model, value) for value in values))
            answers = await asyncio.to_thread(results, model, ready)
            await broker.publish_batch(*(KafkaPublishMessage(said, key=key) for key, said in answers), topic=job.target)

        subscriber = broker.subscriber(
            job.source,
            group_id=job.group,
            batch=True,
            max_records=BATCH,
            polling_interval=BATCH_S,
            ack_policy=AckPolicy.NACK_ON_ERROR,
            auto_offset_reset="earliest",
            session_timeout_ms=SESSION_MS,
            max_poll_interval_ms=SESSION_MS,
        )
        subscriber(categorize, decoder=lambda message: message.body)
        await FastStream(broker, logger=None).run()


if __name__ == "__main__":
    asyncio.run(main())
