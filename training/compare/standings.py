"""What each model is worth over its seeds, and what the differences are worth.

Every choice (the best cross-attention, its rival, the best plain baseline) is made on `select`; the part that is
measured decides nothing. Differences are of the mean correctness per listing over seeds, with intervals over groups.

After runs.py; before tables.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from mmcat.calibration import fit_temperature
from mmcat.paths import PathIndex
from training.compare.kept import Arrays
from training.compare.plan import LATE, Variant
from training.compare.runs import Runs
from training.evaluate import Metrics, measure_answers
from training.evaluate_bundle import PRECISION, group_labels
from training.figures.accuracy import whole_path_right
from training.figures.answers import Answers, answer_levels, answer_paths
from training.figures.bootstrap import Interval, mean_interval, paired_difference
from training.figures.confidence import Accepted, accepted_at, threshold_for
from training.late_fusion import Single, fit_late_fusion

Bools = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float64]
SINGLES = ("text", "image")
FLAT = "flat"  # cross-attention with another head: no rival of it


@dataclass(frozen=True)
class Standing:
    """One model over its seeds; a plain baseline has one, and no metrics.

    Args:
        select: path accuracy on `select`, by seed.
        right: [N] on the measured part, by seed.
        interval: of the mean correctness per listing.
        alone: [N] whether four independent answers were right, by seed; empty for models that score whole paths.
        withheld: by modality taken away, [N] by seed.
    """

    name: str
    select: Sequence[float]
    right: Sequence[Bools]
    interval: Interval
    metrics: Sequence[Metrics] = ()
    accepted: Sequence[Accepted] = ()
    alone: Sequence[Bools] = ()
    withheld: Mapping[str, Sequence[Bools]] = field(default_factory=dict)
    crosses: bool = False

    @property
    def chosen_by(self) -> float:
        return float(np.mean(self.select))


@dataclass(frozen=True, slots=True)
class Difference:
    """What is compared, in words, and by how much."""

    ours: str
    theirs: str
    role: str
    interval: Interval


class Judge:
    """Turns runs into standings; truths and groups of the parts are taken once."""

    def __init__(self, runs: Runs) -> None:
        self._runs, learner = runs, runs.learner
        self._taxonomy, self._index = learner.dataset.taxonomy, PathIndex(learner.dataset.taxonomy)
        self._part = runs.plan.part
        rows = {part: learner.split.rows(part, learner.dataset) for part in ("select", "calibrate", self._part)}
        self._targets = {part: learner.dataset.targets[numbers] for part, numbers in rows.items()}
        self.groups = group_labels(learner.dataset, rows[self._part])

    def standings(self) -> list[Standing]:
        """Each model over its seeds, in the plan's order."""
        seeds = range(self._runs.plan.seeds)
        return self._standings(lambda variant: [self._runs.learned[variant, seed] for seed in seeds])

    def together(self) -> list[Standing]:
        """The same where the models of all seeds answer together, by the mean of their log-probabilities."""
        seeds = range(self._runs.plan.seeds)
        return self._standings(lambda variant: [_mean([self._runs.learned[variant, seed] for seed in seeds])])

    def _standings(self, arrays_of: Callable[[Variant], Sequence[Arrays]]) -> list[Standing]:
        plan = self._runs.plan
        found: list[Standing] = []
        for name in plan.models:
            if name == LATE:
                singles = zip(*(arrays_of(Variant(single)) for single in SINGLES), strict=True)
                found.append(self._standing(LATE, [self._late(text, image) for text, image in singles]))
            else:
                found += [
                    self._trained(variant, arrays_of(variant)) for variant in plan.variants if variant.model == name
                ]
        return found

    def plain(self) -> list[Standing]:
        """The plain baselines."""
        on_select, on_part = self._runs.plain.get("select", {}), self._runs.plain.get(self._part, {})
        found = []
        for name, answers in on_part.items():
            right = answers == self._targets[self._part]
            select = float((on_select[name] == self._targets["select"]).mean())
            found.append(Standing(f"plain {name}", (select,), (right,), mean_interval(right, self.groups)))
        return found

    def differences(self, standings: Sequence[Standing], plain: Sequence[Standing]) -> list[Difference]:
        """The best cross-attention minus every other, and what its decode and its missing modalities cost."""
        crosses = [one for one in standings if one.crosses]
        if not crosses:
            return []
        ours = max(crosses, key=lambda one: one.chosen_by)
        others = [one for one in standings if one is not ours]
        roles = {
            "best rival": [one for one in others if not one.crosses and one.name not in (*SINGLES, FLAT)],
            "best single": [one for one in others if one.name in SINGLES],
            "best plain": list(plain),
        }
        best = {max(some, key=lambda one: one.chosen_by).name: role for role, some in roles.items() if some}
        found = [
            Difference(ours.name, one.name, best.get(one.name, ""), self._difference(ours.right, one.right))
            for one in [*others, *plain]
        ]
        if ours.alone:
            found.append(Difference(ours.name, "four argmaxes", "decode", self._difference(ours.right, ours.alone)))
        for taken, left, words in (("image", "text", "photo withheld"), ("text", "image", "title withheld")):
            single = next((one for one in standings if one.name == left), None)
            if single is not None and taken in ours.withheld:
                interval = self._difference(ours.withheld[taken], single.right)
                found.append(Difference(f"{ours.name}, {words}", left, "missing modality", interval))
        return found

    def _difference(self, ours: Sequence[Bools], theirs: Sequence[Bools]) -> Interval:
        return paired_difference(ours, theirs, self.groups)

    def _trained(self, variant: Variant, arrays: Sequence[Arrays]) -> Standing:
        answered = []
        for one in arrays:
            levels = {part: _levels(one, part) for part in ("select", "calibrate", self._part)}
            scores = self._index.scores(levels["calibrate"])
            temperature = fit_temperature(scores, self._targets["calibrate"])
            answered.append({
                part: answer_levels(logits, self._taxonomy, temperature) for part, logits in levels.items()
            })  # fmt: skip
        withheld = {
            modality: [self._right_without(one, modality) for one in arrays]
            for modality in ("image", "text")
            if _levels(arrays[0], f"{self._part} without {modality}")
        }
        return self._standing(variant.name, answered, withheld, crosses=variant.crosses)

    def _right_without(self, arrays: Arrays, modality: str) -> Bools:
        scores = self._index.scores(_levels(arrays, f"{self._part} without {modality}"))
        right: Bools = scores.argmax(axis=1) == self._targets[self._part]
        return right

    def _late(self, text: Arrays, image: Arrays) -> dict[str, Answers]:
        """Answers of the late fusion by part; weight and mean chosen on `select`."""
        parts = ("select", "calibrate", self._part)
        singles = {part: (self._single("text", text, part), self._single("image", image, part)) for part in parts}
        fused = fit_late_fusion(
            (*singles["calibrate"], self._targets["calibrate"]), (*singles["select"], self._targets["select"])
        )
        scores = {part: fused.scores(*singles[part]) for part in parts}
        temperature = fit_temperature(scores["calibrate"], self._targets["calibrate"])
        return {part: answer_paths(scores_NP, self._taxonomy, temperature) for part, scores_NP in scores.items()}

    def _single(self, model: str, arrays: Arrays, part: str) -> Single:
        return Single(self._index.scores(_levels(arrays, part)), self._runs.learner.there(part)[model])

    def _standing(
        self,
        name: str,
        answered: Sequence[Mapping[str, Answers]],
        withheld: Mapping[str, Sequence[Bools]] | None = None,
        *,
        crosses: bool = False,
    ) -> Standing:
        targets = self._targets[self._part]
        right = [one[self._part].rows == targets for one in answered]
        alone = [one[self._part].alone for one in answered]
        return Standing(
            name=name,
            select=[float((one["select"].rows == self._targets["select"]).mean()) for one in answered],
            right=right,
            interval=mean_interval(np.mean(right, axis=0), self.groups),
            metrics=[measure_answers(one[self._part], targets, self._taxonomy) for one in answered],
            accepted=[self._accepted(one, correct) for one, correct in zip(answered, right, strict=True)],
            alone=[whole_path_right(rows_N4, targets, self._taxonomy) for rows_N4 in alone if rows_N4 is not None],
            withheld=withheld or {},
            crosses=crosses,
        )

    def _accepted(self, answered: Mapping[str, Answers], right: Bools) -> Accepted:
        fitted = answered["calibrate"]
        threshold = threshold_for(fitted.probabilities, fitted.rows == self._targets["calibrate"], PRECISION)
        return accepted_at(threshold, answered[self._part].probabilities, right)


def _mean(runs: Sequence[Arrays]) -> Arrays:
    """Mean log-probabilities of each head."""
    return {name: np.mean([log_softmax(one[name], axis=1) for one in runs], axis=0) for name in runs[0]}


def _levels(arrays: Arrays, name: str) -> list[npt.NDArray[np.float32]]:
    return [arrays[f"{name}.{level}"] for level in range(4) if f"{name}.{level}" in arrays]
