"""Random draws by counter, and opaque tokens: why the shop needs no state.

Everything about listing i is a function of (seed, split, i): a Philox generator is keyed by the shop and counted by the
listing, so that listing 900,000 costs what listing 0 costs and nothing before it has to be made (Salmon et al., 2011,
"Parallel random numbers: as easy as 1, 2, 3"). Tokens turn an index into an address that tells nothing, and back.

Before titles.py and photos.py; knows nothing of listings.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

_BLOCK = 64  # uniforms made at once: a call into numpy costs as much as 20 of these
_HALF_BITS = 24
_HALF_MASK = (1 << _HALF_BITS) - 1
_ROUNDS = 4
TOKEN_LIMIT = 1 << (2 * _HALF_BITS)


def key_of(*parts: object) -> int:
    """A 128-bit key from anything printable; equal parts give equal keys on every machine."""
    digest = hashlib.blake2b("\x1f".join(str(part) for part in parts).encode(), digest_size=16).digest()
    return int.from_bytes(digest, "little")


class Draws:
    """A stream of random numbers that belongs to (key, index) alone."""

    def __init__(self, key: int, index: int) -> None:
        self.generator = np.random.Generator(np.random.Philox(key=key, counter=index << 64))
        self._block: list[float] = []

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A float in [low, high)."""
        if not self._block:
            self._block = self.generator.random(_BLOCK).tolist()
        return low + (high - low) * self._block.pop()

    def between(self, low: int, high: int) -> int:
        """An integer in low … high, both included."""
        return low + int(self.uniform() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.uniform() < probability

    def choice(self, items: Sequence[T]) -> T:
        """One of the items, each as likely."""
        return items[int(self.uniform() * len(items))]

    def weighted(self, cumulative: Sequence[float]) -> int:
        """A place in a cumulative distribution whose last value is 1."""
        return min(bisect_right(cumulative, self.uniform()), len(cumulative) - 1)

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in random order."""
        return [items[place] for _, place in sorted((self.uniform(), place) for place in range(len(items)))]


class Tokens:
    """A secret order of all numbers below 2^48 (a Feistel network), so that an address does not tell its listing.

    Args:
        key: as `key_of` gives it; another key is another order.
    """

    def __init__(self, key: int) -> None:
        self._keys = [(key >> (32 * turn)) & 0xFFFFFFFF for turn in range(_ROUNDS)]

    def hide(self, number: int) -> str:
        """The 12 hex digits of a number in 0 … 2^48 - 1."""
        if not 0 <= number < TOKEN_LIMIT:
            raise ValueError(f"{number} is not in 0 … 2^48 - 1")
        left, right = number >> _HALF_BITS, number & _HALF_MASK
        for key in self._keys:
            left, right = right, left ^ _mixed(right, key)
        return f"{(left << _HALF_BITS) | right:012x}"

    def show(self, token: str) -> int:
        """The number behind a token. Raises ValueError for what `hide` never gives."""
        if len(token) != 12 or not set(token) <= set("0123456789abcdef"):
            raise ValueError(f"not a token: {token[:20]!r}")
        number = int(token, 16)
        left, right = number >> _HALF_BITS, number & _HALF_MASK
        for key in reversed(self._keys):
            left, right = right ^ _mixed(left, key), left
        return (left << _HALF_BITS) | right


def _mixed(half: int, key: int) -> int:
    """24 bits that depend on all bits of both (the finalizer of MurmurHash3)."""
    value = (half ^ key) & 0xFFFFFFFF
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return ((value ^ (value >> 16)) ^ key) & _HALF_MASK
