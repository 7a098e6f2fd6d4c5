"""What is compared: models, keys, numbers of blocks and heads, seeds, the part that is measured; the first step."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from training.errors import RecipeError
from training.train import FAMILY

LATE = "late"  # joins the probabilities of "text" and "image": nothing of its own is trained
Keys = Literal["pooled", "sequence"]


@dataclass(frozen=True, slots=True)
class Variant:
    """One model to be trained; keys, blocks and heads only where a model has them, None: the recipe's.

    Args:
        share: of the training part's groups that it learns from; None: all of them.
    """

    model: str
    keys: Keys | None = None
    blocks: int | None = None
    heads: int | None = None
    share: float | None = None

    @property
    def name(self) -> str:
        """As it stands in tables."""
        keys = "" if self.keys is None else f", {self.keys}"
        blocks = "" if self.blocks is None else f", {self.blocks} block{'s' * (self.blocks > 1)}"
        heads = "" if self.heads is None else f", {self.heads} head{'s' * (self.heads > 1)}"
        share = "" if self.share is None else f", {self.share:g} of train"
        return f"{self.model}{keys}{blocks}{heads}{share}"

    @property
    def crosses(self) -> bool:
        """Whether it is a cross-attention, with blocks and heads."""
        return self.model.startswith("cross")


class Plan(BaseModel):
    """A comparison.

    Args:
        models: of training.train.FAMILY, and "late" for the late fusion of text's and image's probabilities.
        keys, blocks, heads: every combination of them for each cross-attention; empty: the recipe's own. Other models
            read the recipe's keys, or the first that are named here.
        train_shares: a learning curve: each model but the late fusion once for each share of the training part's
            groups, the smaller inside the larger, in as many steps; empty: all of it.
        seeds: of the weights, 0 … seeds - 1; the split has one seed for all.
        part: what is measured; rivals are chosen on `select` in any case.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: Annotated[tuple[str, ...], Field(min_length=1)] = ("text", "image", "concat", LATE, "cross")
    keys: tuple[Keys, ...] = ()
    blocks: tuple[Annotated[int, Field(ge=1, le=12)], ...] = ()
    heads: tuple[Annotated[int, Field(ge=1)], ...] = ()
    train_shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    seeds: Annotated[int, Field(ge=1)] = 5
    part: Literal["select", "test"] = "select"

    @field_validator("models")
    @classmethod
    def _known(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in models if name not in FAMILY and name != LATE]
        if unknown or len(set(models)) != len(models):
            raise ValueError(f"each once of {', '.join(FAMILY)}, {LATE}; not {', '.join(unknown or models)}")
        return models

    @property
    def variants(self) -> tuple[Variant, ...]:
        """What is shown, in the order asked for; without the late fusion."""
        return tuple(variant for name in self.models if name != LATE for variant in self._of(name))

    @property
    def trained(self) -> tuple[Variant, ...]:
        """What must be trained: the late fusion needs both single modalities."""
        needed = (Variant("text"), Variant("image")) if LATE in self.models else ()
        return tuple(dict.fromkeys([*self.variants, *needed]))

    def _of(self, name: str) -> Iterator[Variant]:
        shares = self.train_shares or (None,)
        if not Variant(name).crosses:
            yield from (Variant(name, share=share) for share in shares)
            return
        for combined in product(self.keys or (None,), self.blocks or (None,), self.heads or (None,), shares):
            yield Variant(name, *combined)

    @classmethod
    def load(cls, path: Path) -> "Plan":
        """Reads a plan from YAML.

        Raises:
            RecipeError: unreadable, an unknown key, or a value out of range.
        """
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise RecipeError(f"the plan {path} cannot be read: {' '.join(str(error).split())}") from error
        return cls.check(data, str(path))

    @classmethod
    def check(cls, data: Any, source: str) -> "Plan":
        """Checks values from a file or from flags; one sentence for all that is wrong."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'plan'}: {one['msg']}" for one in error.errors())
            raise RecipeError(f"{source}: {wrong}") from error
