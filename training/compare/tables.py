"""A comparison as people read it: Markdown tables with intervals, two plots, and how to say each figure.

After standings.py; the last step of `mmcat compare`.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from training.compare.runs import Runs
from training.compare.standings import Difference, Judge, Standing
from training.evaluate import Metrics
from training.figures.bootstrap import over_seeds
from training.pages.charts import intervals

_FIGURES: tuple[tuple[str, Callable[[Metrics], float | None]], ...] = (
    ("macro-F1", lambda one: one.macro_f1),
    ("hierarchical F1", lambda one: one.hierarchical_f1),
    ("Kakao", lambda one: one.kakao_score),
    ("Kakao, never absent", lambda one: one.kakao_score_never_absent),
    ("Kakao, expected-score", lambda one: one.kakao_score_expected),
    ("four argmaxes", lambda one: one.argmax_path_accuracy),
    ("of them exist", lambda one: one.argmax_exists),
    ("ECE", lambda one: one.ece),
    ("floor", lambda one: one.ece_floor),
    ("risk–coverage", lambda one: one.risk_coverage_area),
)


def write_comparison(runs: Runs, folder: Path) -> str:
    """Writes comparison.md and its plots, and gives the Markdown."""
    judge = Judge(runs)
    standings, plain = judge.standings(), judge.plain()
    differences = judge.differences(standings, plain)
    together = judge.together() if runs.plan.seeds > 1 else []
    folder.mkdir(parents=True, exist_ok=True)
    lines = [*_markdown(runs, standings, plain, differences)]
    if together:
        lines += ["All seeds' models of a kind together, by the mean of their log-probabilities:", ""]
        lines += [*_accuracies(together), *_differences(judge.differences(together, plain))]
    text = "\n".join(lines)
    (folder / "comparison.md").write_text(text, encoding="utf-8")
    rows = [(one.name, one.interval.value, one.interval.low, one.interval.high) for one in [*standings, *plain]]
    (folder / "path-accuracy.svg").write_text(intervals(rows, "path accuracy, 95 %"), encoding="utf-8")
    if differences:
        rows = [(_words(one), one.interval.value, one.interval.low, one.interval.high) for one in differences]
        (folder / "differences.svg").write_text(intervals(rows, "difference, 95 %"), encoding="utf-8")
    return text


def _markdown(
    runs: Runs, standings: Sequence[Standing], plain: Sequence[Standing], differences: Sequence[Difference]
) -> Iterable[str]:
    plan, learner = runs.plan, runs.learner
    rows = len(learner.split.rows(plan.part, learner.dataset))
    yield f"# {learner.dataset.name}: {plan.seeds} seeds, part {plan.part}"
    yield ""
    yield (
        f"{rows:,} listings; split `{learner.split.fingerprint[:12]}`; recipe {learner.recipe.name}. Mean ± standard"
        " deviation over seeds; intervals are 95 %, by a bootstrap over groups of the mean correctness per listing."
    )
    yield ""
    yield from _accuracies([*standings, *plain])
    yield from _table(
        ["model", *(name for name, _ in _FIGURES), "accepted for 98 %", "of them right"],
        [_figure_row(one) for one in standings],
    )
    if differences:
        yield "Chosen on `select`: the cross-attention, its best rival, single and plain baseline. The smallest true"
        yield "difference that these listings would show (80 % power at 5 %) stands in the last column."
        yield ""
        yield from _differences(differences)


def _accuracies(standings: Sequence[Standing]) -> Iterable[str]:
    levels = [f"level {level}" for level in range(1, 5)]
    yield from _table(
        ["model", "path accuracy", "95 %", "on select", *levels, "photo withheld", "title withheld"],
        [_accuracy_row(one) for one in standings],
    )


def _differences(differences: Sequence[Difference]) -> Iterable[str]:
    yield from _table(
        ["difference", "role", "value", "95 %", "smallest"],
        [
            [_words(one), one.role, f"{one.interval.value:+.4f}", _interval(one), f"{one.interval.smallest:.4f}"]
            for one in differences
        ],
    )


def _words(one: Difference) -> str:
    return f"{one.ours} − {one.theirs}"


def _interval(one: Difference) -> str:
    return f"{one.interval.low:+.4f} to {one.interval.high:+.4f}"


def _accuracy_row(one: Standing) -> list[str]:
    by_level = [_spread([metrics.level_accuracy[level] for metrics in one.metrics]) for level in range(4)]
    withheld = [
        _spread([float(right.mean()) for right in one.withheld.get(modality, ())]) for modality in ("image", "text")
    ]
    accuracy = _spread([float(right.mean()) for right in one.right])
    interval = f"{one.interval.low:.3f} to {one.interval.high:.3f}"
    return [one.name, accuracy, interval, _spread(one.select), *by_level, *withheld]


def _figure_row(one: Standing) -> list[str]:
    figures = [_spread([read(metrics) for metrics in one.metrics]) for _, read in _FIGURES]
    coverage = _spread([accepted.coverage for accepted in one.accepted])
    return [one.name, *figures, coverage, _spread([accepted.precision for accepted in one.accepted])]


def _spread(values: Sequence[float | None]) -> str:
    """Mean ± standard deviation of those that are there."""
    there = [value for value in values if value is not None]
    if not there:
        return ""
    mean, deviation = over_seeds(there)
    return f"{mean:.3f} ± {deviation:.3f}" if len(there) > 1 else f"{mean:.3f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Columns that nothing stands in are left out."""
    kept = [place for place, name in enumerate(header) if any(row[place] for row in rows)]
    yield "| " + " | ".join(header[place] for place in kept) + " |"
    yield "|" + " --- |" * len(kept)
    yield from ("| " + " | ".join(row[place] for place in kept) + " |" for row in rows)
    yield ""
