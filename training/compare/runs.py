"""Everything that a plan asks for: found on disk where it was trained before, trained where not.

After learners.py and kept.py; before standings.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from training.compare.kept import Arrays, Kept
from training.compare.learners import Learner
from training.compare.plan import Plan, Variant
from training.evaluate_bundle import OnTestLook
from training.progress import Progress

HELD = ("select", "calibrate", "test")


@dataclass(frozen=True)
class Runs:
    """Held-out answers of all runs of a plan.

    Args:
        learned: level logits by variant and seed, see `Learner.learn`.
        plain: answers of the plain baselines by part.
    """

    plan: Plan
    learner: Learner
    learned: Mapping[tuple[Variant, int], Arrays]
    plain: Mapping[str, Arrays]


def run(plan: Plan, learner: Learner, kept: Kept, progress: Progress, on_test_look: OnTestLook) -> Runs:
    """Trains what is missing; blocks for a minute or so per run. Stopped half-way, it goes on from the next run.

    All held parts are predicted at once; the truth of test is looked at only where the plan says so, and told first.
    """
    if plan.part == "test":
        purpose = f"compare {', '.join(variant.name for variant in plan.trained)} over {plan.seeds} seeds"
        recipe = learner.recipe.model_dump(mode="json")
        on_test_look(learner.dataset, learner.split, recipe=recipe, model="all of them", purpose=purpose)
    parts = tuple(part for part in HELD if part in learner.split.parts)
    learned: dict[tuple[Variant, int], Arrays] = {}
    found = 0
    for variant in plan.trained:
        facts = learner.facts(variant)
        for seed in range(plan.seeds):
            compute = partial(learner.learn, variant, seed, parts)
            learned[variant, seed], was_there = kept.get({**facts, "seed": seed}, compute)
            found += was_there
    if found:
        progress.say(f"{found} of {len(learned)} runs were finished before")
    plain: dict[str, Arrays] = {}
    for part in dict.fromkeys(("select", plan.part)) if learner.recipe.baselines else ():
        facts = {**learner.facts(None), "plain": part}
        plain[part], _ = kept.get(facts, partial(learner.plain, part))
    return Runs(plan, learner, learned, plain)
