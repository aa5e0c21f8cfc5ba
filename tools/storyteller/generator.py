"""Short children's stories from a grammar: a plot, a cast, and one line per stage."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from .common import Plot
from .grammar import PLOTS, Cast, fill, variables
from .lexicon import GENDER_OF, VARIABLES

PARAGRAPH = 0.85  # how often a stage that may begin a paragraph does


@dataclass(frozen=True)
class Story:
    """A story, and what it is about. `told`: the variables that its text shows. problem: the line that tells
    its plot."""

    text: str
    plot: Plot
    cast: dict[str, str]
    told: frozenset[str]
    problem: str = ""


def draw_cast(rng: random.Random, plot: Plot, wish: Mapping[str, str] | None = None) -> dict[str, str]:
    """Values of all variables that fit each other and the plot. `wish` holds values that are set."""
    cast = {variable: rng.choice(values) for variable, values in VARIABLES.items()}
    cast |= {"object": rng.choice(plot.objects), "color": rng.choice(plot.colors)}
    cast |= wish or {}
    cast["gender"] = GENDER_OF[cast["name"]]
    return draw_cast(rng, plot, wish) if cast["kind"] == cast["friend_kind"] else cast


def tell(rng: random.Random, plot: Plot | None = None, cast: Cast | None = None) -> Story:
    """A story; plot and cast are drawn unless given."""
    plot = plot or rng.choice(list(PLOTS.values()))
    cast = dict(cast or draw_cast(rng, plot))
    parts: list[str] = []
    problem = ""
    told: set[str] = set()
    for name, lines in plot.stages.items():
        line = rng.choice(lines)
        if not line:
            continue
        if parts:
            parts.append("\n\n" if name[0] == "+" and rng.random() < PARAGRAPH else " ")
        parts.append(fill(line, cast))
        told |= variables(line)
        if name == plot.first:
            problem = "".join(parts[-2:])
    return Story("".join(parts), plot, cast, frozenset(told), problem)


def stories(seed: int, n: int) -> list[Story]:
    """n stories; the same seed gives the same ones."""
    rng = random.Random(seed)
    return [tell(rng) for _ in range(n)]
