"""The names of the view's keys. Pure; used by view.py, and by those who look after the keys (rebuild, verify).

A view has a prefix (setting `view.prefix`) and generations: keys of the first begin with the prefix itself, those that
`mmcat cache rebuild` fills with `<prefix>:gen<N>`. What readers need to know of this is in the README.
"""

import re


def current_key(prefix: str) -> str:
    """Holds the generation in use; none: the first."""
    return f"{prefix}:current"


def product_key(generation: str, product_id: str) -> str:
    """Holds what is known of a product, whose id is a hash tag: one slot in a cluster."""
    return f"{generation}:product:{{{product_id}}}"


def positions_key(generation: str, topic: str) -> str:
    """Holds how far a topic was applied."""
    return f"{generation}:positions:{topic}"


def is_generation(prefix: str, name: str) -> bool:
    """Whether this names a generation of the view with this prefix."""
    return re.fullmatch(rf"{re.escape(prefix)}(:gen\d+)?", name) is not None


def generation_of(prefix: str, key: str) -> str | None:
    """The generation that a key belongs to; None if it belongs to none of this view."""
    found = re.fullmatch(rf"({re.escape(prefix)}(?::gen\d+)?):(?:product:\{{.*\}}|positions:.*)", key, re.DOTALL)
    return found and found[1]


def pattern(start: str) -> str:
    """All keys with this beginning, as SCAN matches them."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", start) + "*"
