"""`mmcat evaluate`: every figure of a bundle on one part of the data, as table, JSON, HTML report and contest CSV.

Of Kakao Arena's chunks without categories (dev, test) the contest CSV alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mmcat.cli.bundles import FEATURES, home
from mmcat.cli.interrupts import interruptible
from mmcat.cli.test_looks import note_test_look
from mmcat.cli.texts import CommandError, new_app, print_json
from mmcat.cli.train import SHOP

if TYPE_CHECKING:
    from mmcat.taxonomy import Taxonomy
    from training.evaluate_bundle import Evaluation
    from training.figures.answers import Answers
    from training.progress import Progress

app = new_app()


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A trained bundle.")],
    data: Annotated[str, typer.Option(metavar="FOLDER|shop", help="The listings it was trained on.")],
    part: Annotated[
        Literal["select", "calibrate", "test"], typer.Option(help="Of the split; test is for what will be reported.")
    ] = "select",
    chunks: Annotated[
        Literal["dev", "test"] | None,
        typer.Option(help="Of Kakao Arena, without categories: only answer them all, into contest.csv and run.json."),
    ] = None,
    title_column: Annotated[str, typer.Option(help="Column of listings.tsv that holds the titles.")] = "title",
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="For the files; default: under MMCAT_HOME.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Fresh listings of the shop, for its test part.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the split; default: the one it was trained with.")] = None,
    suspects: Annotated[bool, typer.Option(help="Look for wrong labels (a minute on 10,000 listings).")] = True,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Every figure as JSON on stdout.")] = False,
) -> None:
    """Every figure of a bundle on one part of the data that it was trained on.

    Writes evaluation.html (plots, worst confusions with photos, suspected labels; one file, no network),
    evaluation.json, contest.csv (pid,b,m,s,d: the answers that expect most of the Kakao score) and run.json.

    \b
    Examples:
      mmcat evaluate bundles/cross --data listings/ --title-column title
      mmcat evaluate bundles/cross --data listings/ --part test --json
      mmcat evaluate bundles/cross --data shop --part test
      mmcat evaluate models/cross --data kakao/ --chunks dev
    """
    if data != SHOP and not Path(data).is_dir():
        raise CommandError(f"there is no folder {data}; the simulated shop is called {SHOP}")
    from mmcat.cli.progress import StderrProgress

    if chunks is not None:
        with interruptible(), StderrProgress() as progress:
            said = _answer(bundle, Path(data), chunks, out, device, progress)
        if as_json:
            print_json(said)
        else:
            print(f"{said['rows']:,} answers are in {said['files']}/contest.csv")
        return
    with interruptible(), StderrProgress() as progress:
        evaluation = _evaluate(bundle, data, part, title_column, count, seed, device, progress)
        folder = out or home() / "evaluations" / f"{evaluation.bundle.fingerprint[:12]}-{part}"
        score = _write(evaluation, folder, suspects, progress)
    if as_json:
        print_json(evaluation.to_json() | {"official_score": round(score, 4), "files": str(folder)})
        return
    _draw(evaluation)
    print(
        f"official score of contest.csv {score:.4f}; evaluation.html, evaluation.json and run.json too are in {folder}"
    )


def _evaluate(
    bundle: Path,
    data: str,
    part: Literal["select", "calibrate", "test"],
    title_column: str,
    count: int | None,
    seed: int | None,
    device: str,
    progress: "Progress",
) -> "Evaluation":
    from training.evaluate_bundle import FRESH_LISTINGS, evaluate_folder, evaluate_shop

    cache = home() / FEATURES
    if data == SHOP:
        return evaluate_shop(
            bundle,
            part,
            count=count or FRESH_LISTINGS,
            cache=cache,
            progress=progress,
            on_test_look=note_test_look,
            seed=seed,
            device=device,
        )
    return evaluate_folder(
        bundle,
        Path(data),
        part,
        title_column=title_column,
        cache=cache,
        progress=progress,
        on_test_look=note_test_look,
        seed=seed,
        device=device,
    )


def _answer(
    bundle: Path, folder: Path, chunks: str, out: Path | None, device: str, progress: "Progress"
) -> dict[str, Any]:
    """Answers listings whose truth is not known; writes the contest's file and what was run, and says where."""
    from training.evaluate_bundle import predict_chunks

    found = predict_chunks(bundle, folder, chunks, cache=home() / FEATURES, progress=progress, device=device)
    files = out or home() / "evaluations" / f"{found.bundle.fingerprint[:12]}-{chunks}-chunks"
    files.mkdir(parents=True, exist_ok=True)
    _write_contest(files, found.dataset.rows.column("id").to_pylist(), found.answers, found.dataset.taxonomy)
    _write_json(files / "run.json", found.configuration)
    return {"rows": len(found.answers), "bad_rows": len(found.dataset.skipped), "files": str(files)}


def _write_contest(folder: Path, pids: Sequence[str], answers: "Answers", taxonomy: "Taxonomy") -> None:
    from training.figures.contest import level_ids, write_csv

    write_csv(folder / "contest.csv", pids, level_ids(answers.expected, taxonomy))


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    import json

    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _write(evaluation: "Evaluation", folder: Path, suspects: bool, progress: "Progress") -> float:
    """Writes the four files and gives the official score of the contest's."""
    from training.figures.contest import level_ids, official_score, read_csv
    from training.pages.evaluation import evaluation_page
    from training.suspected import suspected_labels

    folder.mkdir(parents=True, exist_ok=True)
    taxonomy, targets = evaluation.dataset.taxonomy, evaluation.dataset.targets[evaluation.rows]
    pids = [evaluation.dataset.rows[row].id for row in evaluation.rows.tolist()]
    _write_contest(folder, pids, evaluation.answers, taxonomy)
    truth = dict(zip(pids, level_ids(taxonomy.path_classes[targets], taxonomy), strict=True))
    _write_json(folder / "evaluation.json", evaluation.to_json())
    _write_json(folder / "run.json", evaluation.configuration)
    suspected = suspected_labels(evaluation, progress) if suspects else None
    (folder / "evaluation.html").write_text(evaluation_page(evaluation, suspected), encoding="utf-8")
    return official_score(read_csv(folder / "contest.csv"), truth)


def _draw(evaluation: "Evaluation") -> None:
    from rich.console import Console
    from rich.table import Table

    from training.pages.evaluation import accepted_words, figure_rows

    table = Table("figure", "value", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for name, value in figure_rows(evaluation):
        table.add_row(name, value)
    console = Console(markup=False, highlight=False)
    console.print(f"{evaluation.bundle.name} on {len(evaluation.rows):,} listings of the part {evaluation.part}")
    console.print(table)
    console.print(f"at the threshold for 98 % precision on the calibration part: {accepted_words(evaluation)}")
