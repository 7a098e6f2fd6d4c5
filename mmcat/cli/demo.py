"""`mmcat demo`: the whole path on this machine. Train once, start everything, send listings, read what came out.

The story is `tell`; its parts are the modules `demo_*`.
Whatever it starts ends with it: on Ctrl-C and SIGTERM by leaving the contexts, on a crash by the kernel.
"""

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmcat.cli.interrupts import interruptible
from mmcat.cli.texts import CommandError, new_app, print_json, say

if TYPE_CHECKING:
    from mmcat.cli.demo_data import Source

app = new_app()


@dataclass(frozen=True, slots=True)
class Options:
    """What the demo was asked for."""

    broker: str
    window: int
    rate: float
    device: str


@dataclass
class Clock:
    """Seconds of each act."""

    seconds: dict[str, float] = field(default_factory=dict)
    _since: float = field(default_factory=time.monotonic)

    def act(self, name: str) -> None:
        """The act `name` ends now."""
        now = time.monotonic()
        self.seconds[name] = round(now - self._since, 1)
        self._since = now


@app.command()
def demo(
    listings: Annotated[
        int | None, typer.Option(min=1, help="Listings to send; default 500, with --data the whole part.")
    ] = None,
    broker: Annotated[str, typer.Option(metavar="tansu|kafka|HOST:PORT", help="Which broker to use.")] = "tansu",
    data: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Real listings instead of the shop's.")] = None,
    title_column: Annotated[str, typer.Option(help="Column of listings.tsv that holds the titles.")] = "title",
    final: Annotated[
        bool, typer.Option("--final", help="With --data: the test part, not the validation part; the look is noted.")
    ] = False,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="With --data: fetch photos from addresses that are not public, too.")
    ] = False,
    encoders: Annotated[
        str | None, typer.Option(metavar="FOLDER|NAME", help="Pretrained encoders, for --data.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="Training recipe, by name or file.")] = "",
    bundles: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Bundles trained before; train none.")] = None,
    window: Annotated[int, typer.Option(min=1, help="Most listings without an answer at a time.")] = 64,
    rate: Annotated[float, typer.Option(min=0, help="Events a second; 0: as fast as answers come.")] = 0.0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="The summary as one JSON object on stdout.")] = False,
) -> None:
    """Watch listings go in and categories come out: broker, cache, photo host and the real consumer, all started here.

    The first run trains a small model (about three minutes) and keeps it under MMCAT_HOME. Then listings are sent, one
    of them deleted again, with two broken events between them; at the end stands what came out, against the truth and
    beside models that see only the title, only the photo, or both without attention. Of real listings the validation
    part is sent; --final sends the test part.

    \b
    Examples:
      mmcat demo
      mmcat demo --listings 300 --json
      mmcat demo --broker kafka
      mmcat demo --data FOLDER --title-column title --encoders FOLDER
    """
    options = Options(broker, window, rate, device)
    with interruptible():
        if data is not None:
            from mmcat.cli.demo_data import folder_source

            source = folder_source(
                data,
                title_column,
                encoders,
                recipe or "fashion_cpu",
                listings or 0,
                bundles,
                final=final,
                allow_private=allow_private,
            )
        else:
            from mmcat.cli.demo_data import shop_source

            source = shop_source(listings or 500, recipe or "shop_demo", bundles)
        summary = tell(source, options)
    if as_json:
        print_json(summary)
    else:
        from mmcat.cli.demo_summary import draw

        draw(summary)


def tell(source: "Source", options: Options) -> dict[str, Any]:
    """Run the demo from training to the figures; blocks for minutes the first time, else for less than one."""
    from mmcat.cli.demo_servers import set_stage
    from mmcat.cli.demo_stream import Pace, plan, stream
    from mmcat.cli.demo_summary import summarize
    from mmcat.cli.demo_table import LiveTable

    clock = Clock()
    ensure_trained(source)
    clock.act("train")
    shown = source.open()
    say("starting broker, cache, photo host and consumer")
    with set_stage(options.broker, source.bundles / "cross", shown.photo, options.device) as stage:
        clock.act("start")
        with LiveTable(len(shown.items)) as table:
            events = plan(shown.items, stage.photo_base)
            pace = Pace(options.window, options.rate)
            outcomes = stream(stage.settings, events, pace, alive=stage.alive, on_result=table.add)
        clock.act("stream")
        cached = stage.cached(len(shown.items) - 1)
        names = {"broker": stage.broker, "view": stage.view}
    say("comparing with models that see less")
    summary = summarize(outcomes, shown.items, cached)
    summary |= shown.compare(options.device)
    model = next(iter(outcomes.results.values()))["model"]
    bundle = {"name": model["name"], "fingerprint": model["fingerprint"], "path": str(source.bundles / "cross")}
    engine = f"{model['engine']} {model['precision']}"
    return {**summary, "seconds": clock.seconds, "engine": engine, **names, "bundle": bundle}


def ensure_trained(source: "Source") -> None:
    """Train the source's bundles where they are not there; written beside and renamed, so that none is half there."""
    if source.trained:
        return
    if source.bundles.exists():
        raise CommandError(f"{source.bundles} holds no bundle named cross")
    from mmcat.cli.progress import StderrProgress

    say(f"training a model for {source.name}, once; it is kept in {source.bundles}")
    source.bundles.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=source.bundles.parent, prefix=".training-") as beside,
        StderrProgress() as bars,
    ):
        out = Path(beside) / "bundles"
        source.train(out, bars)
        out.replace(source.bundles)
