"""`mmcat compare`: several models over several seeds on one split, as Markdown tables with intervals, and plots."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mmcat.cli.bundles import FEATURES, home
from mmcat.cli.interrupts import interruptible
from mmcat.cli.test_looks import note_test_look
from mmcat.cli.texts import CommandError, new_app, say
from mmcat.cli.train import SHOP

if TYPE_CHECKING:
    from training.compare.learners import FeatureLearner
    from training.compare.plan import Keys
    from training.progress import Progress

RUNS = "comparisons"
"""Under `home()`: held-out answers of finished runs, and the tables."""

app = new_app()


@app.command()
def compare(
    data: Annotated[str, typer.Argument(metavar="shop|FOLDER", help="The simulated shop, or a folder of listings.")],
    plan: Annotated[Path | None, typer.Option(metavar="FILE", help="The flags below as YAML; flags win.")] = None,
    models: Annotated[str, typer.Option(help="Separated by commas: text, image, concat, late, flat, cross.")] = "",
    keys: Annotated[
        str, typer.Option(help="Of cross-attention: pooled, sequence or both by a comma; default: the recipe's.")
    ] = "",
    blocks: Annotated[str, typer.Option(help="Of cross-attention, separated by commas; default: the recipe's.")] = "",
    heads: Annotated[str, typer.Option(help="Of cross-attention, separated by commas; default: the recipe's.")] = "",
    train_shares: Annotated[
        str, typer.Option(help="A learning curve: shares of the training part, separated by commas: 0.25,0.5,1.")
    ] = "",
    seeds: Annotated[int | None, typer.Option(min=1, help="Of the weights, from 0; default 5.")] = None,
    part: Annotated[
        Literal["select", "test"] | None, typer.Option(help="What is measured; test is for what will be reported.")
    ] = None,
    title_column: Annotated[str, typer.Option(help="Column of listings.tsv that holds the titles.")] = "title",
    encoders: Annotated[
        str | None, typer.Option(metavar="FOLDER|NAME", help="Pretrained encoders, where the recipe has such.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="By name or file; default: shop_demo or fashion_cpu.")] = "",
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe: --set fusion.lr=0.0005.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=100, help="Listings of the shop; default: the usual number.")] = None,
    shop: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Change the shop: --shop things=4; see ShopConfig.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="For tables and plots; else MMCAT_HOME.")] = None,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Compare models on one split: accuracy over seeds, and differences with intervals over groups of listings.

    The best cross-attention, its rival and the best plain baseline are chosen on the part select, never on test.
    Finished runs are kept: a comparison that was stopped goes on where it was.

    \b
    Examples:
      mmcat compare listings/ --title-column hard_title --encoders weights/ --seeds 5
      mmcat compare listings/ --encoders weights/ --models cross --blocks 1,2,6 --heads 1,2,4 --seeds 3
      mmcat compare listings/ --encoders weights/ --keys pooled,sequence --seeds 3
      mmcat compare listings/ --encoders weights/ --models cross --train-shares 0.25,0.5,1
      mmcat compare shop --models text,image,concat,late,cross --part test
      mmcat compare shop --shop things=4 --recipe fashion_cpu --encoders weights/ --keys pooled,sequence
    """
    if data != SHOP and not Path(data).is_dir():
        raise CommandError(f"there is no folder {data}; the simulated shop is called {SHOP}")
    from mmcat.cli.progress import StderrProgress
    from training.compare.kept import Kept
    from training.compare.plan import Plan
    from training.compare.runs import run
    from training.compare.tables import write_comparison

    lists = {"models": models, "keys": keys, "blocks": blocks, "heads": heads, "train_shares": train_shares}
    given: dict[str, Any] = {"seeds": seeds, "part": part}
    given |= {name: value.split(",") for name, value in lists.items() if value}
    asked = Plan.load(plan) if plan is not None else Plan()
    flags = {name: value for name, value in given.items() if value is not None}
    asked = Plan.check(asked.model_dump(mode="json") | flags, "the comparison")
    with interruptible(), StderrProgress() as progress:
        learner = _learner(
            data, asked.keys, title_column, encoders, recipe, changes or (), shop or (), count, seed, device, progress
        )  # fmt: skip
        if asked.part not in learner.split.parts:
            raise CommandError(f"the split of {learner.dataset.name} has no part {asked.part}: compare on select")
        runs = run(asked, learner, Kept(home() / RUNS / "runs"), progress, note_test_look)
    folder = out or home() / RUNS / f"{learner.dataset.name}-{learner.split.fingerprint[:12]}-{asked.part}"
    print(write_comparison(runs, folder))
    say(f"comparison.md and its plots are in {folder}")


def _learner(
    data: str,
    keys: "Sequence[Keys]",
    title_column: str,
    encoders: str | None,
    recipe: str,
    changes: Sequence[str],
    shop: Sequence[str],
    count: int | None,
    seed: int,
    device: str,
    progress: "Progress",
) -> "FeatureLearner":
    from training.compare.learners import feature_learner
    from training.recipe import Recipe

    named = Recipe.load(recipe or ("shop_demo" if data == SHOP else "fashion_cpu"), changes)
    if data == SHOP:
        from training.readers.shop import shop_config, shop_dataset
        from training.train import SHOP_LISTINGS

        dataset = shop_dataset(shop_config(shop), count or SHOP_LISTINGS, 2 * named.photo.px)
    else:
        from training.readers.read import read_listings

        dataset = read_listings(data, title_column, cache=home() / FEATURES, progress=progress)
    return feature_learner(
        dataset,
        named,
        encoders=encoders,
        cache=home() / FEATURES,
        progress=progress,
        keys=keys,
        seed=seed,
        device=device,
    )
