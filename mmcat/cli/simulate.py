"""`mmcat simulate`: a shop that registers listings in Kafka at a rate and serves their photos.

The shop itself is `training.shop`, which knows nothing of Kafka; this file is its producer.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmcat.cli.interrupts import interruptible
from mmcat.cli.options import Bootstrap, Config, asking_broker, load_settings
from mmcat.cli.texts import CommandError, new_app, print_json, say

if TYPE_CHECKING:
    from consumer.settings import Settings
    from training.shop.photo_host import PhotoHost
    from training.shop.shop import Shop
    from training.shop.stream import StreamEvent

SPEAK_S = 5.0
FLUSH_S = 30.0
BROKER_S = 10.0

app = new_app()


@app.command()
def simulate(
    rate: Annotated[float, typer.Option(min=0, help="Events a second; 0: as fast as the broker takes them.")] = 10.0,
    count: Annotated[int, typer.Option(min=0, help="Listings to register; 0: until stopped.")] = 0,
    start: Annotated[int, typer.Option(min=0, help="Number of the first listing.")] = 0,
    seed: Annotated[int, typer.Option(help="Another seed, other listings.")] = 7,
    updates: Annotated[float, typer.Option(min=0, max=1, help="Share of listings changed later.")] = 0.0,
    deletions: Annotated[float, typer.Option(min=0, max=1, help="Share of listings deleted later.")] = 0.0,
    late_photos: Annotated[float, typer.Option(min=0, max=1, help="Share of photos missing at first.")] = 0.0,
    late_s: Annotated[float, typer.Option(min=0, help="How long a late photo is missing.")] = 20.0,
    bad: Annotated[float, typer.Option(min=0, max=1, help="Bad events for each listing.")] = 0.0,
    serve: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to serve the photos.")] = "127.0.0.1:8088",
    photo_base: Annotated[str, typer.Option(metavar="URL", help="Serve none; photos are at this address.")] = "",
    photos_only: Annotated[bool, typer.Option("--photos-only", help="Serve photos, send nothing.")] = False,
    linger_s: Annotated[float, typer.Option(min=0, help="Serve photos so long after the last event.")] = 10.0,
    config: Config = None,
    bootstrap: Bootstrap = None,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON on stdout.")] = False,
) -> None:
    """Play a shop: register listings at a rate, serve their photos, change and delete some, send bad events.

    The same seed sends the same listings. The consumer asks private addresses only where it is told to:
    MMCAT_PHOTO__ALLOW=127.0.0.1/32 MMCAT_PHOTO__PORTS=8088 lets it have these photos.

    \b
    Examples:
      mmcat simulate --rate 50 --count 1000
      mmcat simulate --updates 0.1 --deletions 0.05 --late-photos 0.1 --bad 0.01 --json
      mmcat simulate --photos-only --serve 0.0.0.0:8088
    """
    from training.shop.shop import MOST_LISTINGS, Shop, ShopConfig
    from training.shop.stream import StreamMix, events

    shop = Shop(ShopConfig(seed=seed).demo())
    host = None if photo_base else _photo_host(shop, serve, late_photos, late_s)
    with interruptible(), host or nullcontext():
        if photos_only:
            say(f"photos at {host.base_url if host else photo_base}")
            threading.Event().wait()
        base = host.base_url if host else photo_base.rstrip("/")
        settings = load_settings(config, {"kafka.bootstrap_servers": bootstrap})
        mix = StreamMix(updates, deletions, late_photos, bad)
        stream = events(shop, count or MOST_LISTINGS - start, base, mix, start=start, now=lambda: datetime.now(UTC))
        say(f"sending to {settings.topics.input} at {settings.kafka.bootstrap_servers}; photos at {base}")
        with asking_broker(settings):
            summary = send(settings, stream, rate)
        if host is not None and linger_s:
            say(f"all sent; serving photos for {linger_s:g} s more")
            threading.Event().wait(linger_s)
    if as_json:
        print_json(summary)
    else:
        print(", ".join(f"{name} {value}" for name, value in summary.items()))


def send(settings: "Settings", stream: "Iterator[StreamEvent]", rate: float) -> dict[str, Any]:
    """Send a stream at a rate until it ends or somebody interrupts; returns counts by kind.

    Raises:
        CommandError: the broker did not take some of it.
        ConfigError: it has no such topic.
        KafkaException: it does not answer.
    """
    from consumer.kafka import KafkaError, Message, make_admin, make_producer, require_topics

    require_topics(make_admin(settings.kafka), settings.kafka, [settings.topics.input], BROKER_S)

    failures: Counter[str] = Counter()

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures[error.str()] += 1

    producer = make_producer(settings.kafka)
    counts: Counter[str] = Counter()
    start_s = spoke_s = time.monotonic()
    try:
        for place, event in enumerate(stream):
            _wait_until(producer, start_s + place / rate if rate else 0.0)
            _produce(producer, settings.topics.input, event, delivered)
            counts[event.kind.value] += 1
            if time.monotonic() - spoke_s > SPEAK_S:
                spoke_s = time.monotonic()
                say(f"  {counts.total()} events, {counts.total() / (spoke_s - start_s):.0f}/s")
    except KeyboardInterrupt:
        say("stopped")
    left = producer.flush(FLUSH_S)
    if failures or left:
        why = "; ".join(f"{count} × {reason}" for reason, count in failures.items()) or "no answer"
        raise CommandError(f"the broker did not take {failures.total() + left} events: {why}")
    seconds = time.monotonic() - start_s
    total = counts.total()
    return {"sent": total, **counts, "seconds": round(seconds, 1), "per_second": round(total / max(seconds, 1e-9), 1)}


def _wait_until(producer: Any, due_s: float) -> None:
    """Serve the producer's callbacks until it is time; returns at once where it is late."""
    producer.poll(0)
    while (left_s := due_s - time.monotonic()) > 0:
        producer.poll(min(left_s, 0.5))


def _produce(producer: Any, topic: str, event: "StreamEvent", delivered: Any) -> None:
    while True:
        try:
            producer.produce(topic, event.value, event.key, headers=list(event.headers), on_delivery=delivered)
        except BufferError:  # the client's queue is full: the broker sets the pace
            producer.poll(0.1)
        else:
            return


def _photo_host(shop: "Shop", serve: str, late_photos: float, late_s: float) -> "PhotoHost":
    from training.shop.photo_host import PhotoHost, late, shop_photos

    host, _, port = serve.rpartition(":")
    if not host or not port.isdigit():
        raise CommandError(f"--serve is HOST:PORT, not {serve!r}")
    faults = late(late_photos, late_s) if late_photos else None
    return PhotoHost(shop_photos(shop), faults, host=host, port=int(port))
