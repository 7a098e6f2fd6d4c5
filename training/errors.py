"""What training refuses on purpose, each as one sentence for a person.

    TrainingError
    ├── DataError        a data folder or split file that cannot be used: mend the file
    ├── RecipeError      a recipe with an unknown key, a value out of range, or encoders that are not there
    └── CheckpointError  a checkpoint of another run, or none at all

Comes before everything else in the package.
"""

from mmcat.errors import MmcatError


class TrainingError(MmcatError):
    """Training cannot go on, and a person can mend it."""


class DataError(TrainingError):
    """The listings, photos, taxonomy or split cannot be used as they are."""


class RecipeError(TrainingError):
    """The recipe, or what it names, does not fit together."""


class CheckpointError(TrainingError):
    """What was kept of an earlier run does not belong to this one."""
