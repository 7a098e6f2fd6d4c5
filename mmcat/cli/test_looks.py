"""Where the program learns that the test part of a split is looked at: `evaluate` and `compare` call this first."""

from mmcat.cli.texts import say

__all__ = ["note_test_look"]


def note_test_look(split_fingerprint: str, what: str) -> None:
    """Says so; a part that is looked at again and again is no test any more."""
    say(f"looking at the test part of the split {split_fingerprint[:12]}: {what}")
