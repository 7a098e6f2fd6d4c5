"""An Evaluation as one HTML file: figures, plots, mistakes with their photos, suspected labels, configuration.

Self-contained: photos are data URIs, plots are inline SVG, nothing is fetched. After evaluate_bundle.py; the last step
of `mmcat evaluate`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcat.taxonomy import Taxonomy
from training.evaluate import Metrics
from training.evaluate_bundle import Evaluation
from training.figures.confidence import reliability, risk_coverage
from training.figures.confusions import worst_siblings
from training.figures.suspects import Suspect
from training.pages.charts import Curve, curves
from training.pages.thumbnails import thumbnail

PAIRS, PHOTOS_PER_PAIR = 10, 6
_WITHHELD = {"image": "photo withheld", "text": "title withheld"}
_FIGURES = {
    "path_accuracy": "path accuracy (stop included)",
    "exists": "share of answers that exist",
    "argmax_path_accuracy": "path accuracy of four independent answers",
    "argmax_exists": "share of those that exist",
    "macro_f1": "macro-F1 over paths with rows",
    "hierarchical_f1": "hierarchical F1",
    "kakao_score": "Kakao score, absent allowed",
    "kakao_score_never_absent": "Kakao score, never absent",
    "kakao_score_expected": "Kakao score of expected-score answers (not served)",
    "ece": "expected calibration error",
    "ece_floor": "its floor on as many rows",
    "risk_coverage_area": "area under risk–coverage",
}


@dataclass(frozen=True, slots=True)
class Suspected:
    """Suspected labels and where they were looked for, in one sentence."""

    found: Sequence[Suspect]
    note: str


def evaluation_page(evaluation: Evaluation, suspected: Suspected | None) -> str:
    """The whole page; decodes up to a hundred photos.

    Args:
        suspected: rows are of the evaluation's data set; None: not looked for.
    """
    from jinja2 import Environment

    template = Path(__file__).with_name("evaluation.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True)
    return environment.from_string(template).render(_context(evaluation, suspected))


def _context(evaluation: Evaluation, suspected: Suspected | None) -> dict[str, Any]:
    metrics, answers = evaluation.metrics, evaluation.answers
    bars = reliability(answers.probabilities, evaluation.right)
    coverage, risk = risk_coverage(answers.probabilities, evaluation.right)
    diagonal = Curve("perfectly calibrated", (0, 1), (0, 1), dashed=True)
    seen = Curve("this model", [bar.probability for bar in bars], [bar.right for bar in bars], dots=True)
    return {
        "title": f"{evaluation.bundle.name}: what it is worth",
        "data_note": evaluation.dataset.note,
        "part": evaluation.part,
        "rows": len(evaluation.rows),
        "split": evaluation.split.fingerprint,
        "fingerprint": evaluation.bundle.fingerprint,
        "tiles": _tiles(evaluation),
        "figures": _figures(metrics),
        "tables": _tables(evaluation),
        "reliability": curves([seen, diagonal], "path probability", "share right"),
        "risk": curves(
            [Curve("this model", coverage.tolist(), risk.tolist())], "coverage", "error", max(0.05, float(risk.max()))
        ),
        "ece": share(metrics.ece),
        "ece_floor": share(metrics.ece_floor),
        "area": share(metrics.risk_coverage_area),
        "accepted": accepted_words(evaluation),
        "confusions": _confusions(evaluation),
        "suspects": None if suspected is None else [_suspect(evaluation, one) for one in suspected.found],
        "suspects_note": "" if suspected is None else suspected.note,
        "configuration": json.dumps(evaluation.configuration, ensure_ascii=False, indent=1),
    }


def share(value: float | None) -> str:
    """Three digits: what thousands of rows can tell."""
    return "–" if value is None else f"{value:.3f}"


def figure_rows(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Name and value of every single figure, those per level and with a modality withheld included."""
    levels = enumerate(evaluation.metrics.level_accuracy, start=1)
    rows = [*_figures(evaluation.metrics), *((f"accuracy at level {level}", share(value)) for level, value in levels)]
    rows += [
        (f"path accuracy, {_WITHHELD[modality]}", share(metrics.path_accuracy))
        for modality, metrics in evaluation.withheld.items()
    ]
    return rows + [
        (f"path accuracy, {label} training rows ({rows:,} listings)", share(value))
        for label, rows, value in evaluation.by_training_rows
    ]


def _figures(metrics: Metrics) -> list[tuple[str, str]]:
    return [(words, share(getattr(metrics, name))) for name, words in _FIGURES.items()]


def accepted_words(evaluation: Evaluation) -> str:
    """Coverage and attained precision at the threshold from the calibration part."""
    accepted = evaluation.accepted
    if accepted.precision is None:
        return "nothing accepted"
    return f"{accepted.coverage:.1%} accepted, {accepted.precision:.1%} of them right"


def _tiles(evaluation: Evaluation) -> list[dict[str, str]]:
    interval, gain = evaluation.path_accuracy, evaluation.decode_gain
    metrics, accepted = evaluation.metrics, evaluation.accepted
    precision = "nothing accepted" if accepted.precision is None else f"{accepted.precision:.1%} of them right"
    tiles = [
        (share(interval.value), "path accuracy", f"95 %: {interval.low:.3f} to {interval.high:.3f}"),
        (share(metrics.exists), "answers that exist", f"{share(metrics.argmax_exists)} without decode"),
        (f"{gain.value:+.3f}", "decode − four argmaxes", f"95 %: {gain.low:+.3f} to {gain.high:+.3f}"),
        (share(metrics.ece), "calibration error", f"floor {share(metrics.ece_floor)}"),
        (f"{accepted.coverage:.1%}", "accepted for 98 %", precision),
    ]
    return [{"value": value, "name": name, "note": note} for value, name, note in tiles]


def _tables(evaluation: Evaluation) -> list[dict[str, Any]]:
    levels = enumerate(evaluation.metrics.level_accuracy, start=1)
    tables: list[dict[str, Any]] = [
        {"header": ["level", "accuracy"], "rows": [[str(level), share(value)] for level, value in levels]},
        {
            "header": ["training rows of the path", "rows", "path accuracy"],
            "rows": [[label, f"{rows:,}", share(value)] for label, rows, value in evaluation.by_training_rows],
        },
        {
            "header": ["where answers leave the true path", "share of all"],
            "rows": [[name, f"{value:.1%}"] for name, value in evaluation.leaves.items() if value],
        },
    ]
    if evaluation.withheld:
        rows = [("title and photo", evaluation.metrics)]
        rows += [(_WITHHELD[modality], metrics) for modality, metrics in evaluation.withheld.items()]
        header = ["what it sees", "path accuracy", "calibration error", "floor"]
        tables.append({"header": header, "rows": [_seen(name, metrics) for name, metrics in rows]})
    return tables


def _seen(name: str, metrics: Metrics) -> list[str]:
    return [name, share(metrics.path_accuracy), share(metrics.ece), share(metrics.ece_floor)]


def _confusions(evaluation: Evaluation) -> list[dict[str, Any]]:
    dataset, answers = evaluation.dataset, evaluation.answers
    targets = dataset.targets[evaluation.rows]
    pairs = worst_siblings(answers.rows, targets, answers.probabilities, dataset.taxonomy, PAIRS)
    return [
        {
            "count": len(pair.rows),
            "share": f"{pair.share:.0%}",
            "truth": names(dataset.taxonomy, pair.truth),
            "answer": names(dataset.taxonomy, pair.answer),
            "listings": [
                _listing(evaluation, int(evaluation.rows[row]))
                | {"probability": f"probability {answers.probabilities[row]:.2f}"}
                for row in pair.rows[:PHOTOS_PER_PAIR]
            ],
        }
        for pair in pairs
    ]


def _suspect(evaluation: Evaluation, one: Suspect) -> dict[str, Any]:
    taxonomy = evaluation.dataset.taxonomy
    return _listing(evaluation, one.row) | {
        "label": names(taxonomy, int(evaluation.dataset.targets[one.row])),
        "answer": names(taxonomy, one.answer),
        "label_probability": f"{one.label_probability:.3f}",
        "answer_probability": f"{one.answer_probability:.3f}",
    }


def _listing(evaluation: Evaluation, number: int) -> dict[str, Any]:
    row = evaluation.dataset.rows[number]
    return {"id": row.id, "title": row.title, "photo": thumbnail(row)}


def names(taxonomy: Taxonomy, row: int) -> str:
    """A path as people read it."""
    return " > ".join(node.name for node in taxonomy.paths[row])
