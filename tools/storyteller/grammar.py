"""Templates both ways: `fill` writes a line for a cast, `Pattern.match` reads a line back into facts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Final

from .lexicon import GENDER_OF, SLOTS, VARIABLES
from .plots_deeds import GARDEN, GIFT, MUSIC_PLOT, SHARE
from .plots_heart import AFRAID, ASTRAY, LONELY, RESCUE
from .plots_lost import BROKEN, LOST, STUCK, TAKEN
from .plots_truth import TRUTH

Cast = Mapping[str, str]  # variable -> its value
Facts = dict[str, frozenset[str]]  # variable -> the values that the text so far leaves open

PLOTS: Final = {
    plot.name: plot
    for plot in (
        LOST, STUCK, BROKEN, TAKEN, LONELY, AFRAID, ASTRAY, RESCUE, SHARE, GIFT, TRUTH, MUSIC_PLOT, GARDEN,
    )
}  # fmt: skip
SLOT: Final = re.compile(r"\{(\w+)\}")
WORD: Final = re.compile(r"[A-Za-z]+")


def fill(line: str, cast: Cast) -> str:
    """The text of a line for a cast."""

    def text(slot: re.Match[str]) -> str:
        variable, texts = SLOTS[slot[1]]
        return texts[cast[variable]]

    return SLOT.sub(text, line)


@cache
def variables(line: str) -> frozenset[str]:
    """The variables that a line shows."""
    return frozenset(SLOTS[slot][0] for slot in SLOT.findall(line))


class Pattern:
    """A line as something to look for in a text."""

    def __init__(self, line: str) -> None:
        self._slots = [SLOTS[slot] for slot in SLOT.findall(line)]
        regex = []
        for i, part in enumerate(SLOT.split(line)):
            if i % 2 == 0:
                regex.append(re.escape(part))
                continue
            texts = sorted(set(SLOTS[part][1].values()), key=len, reverse=True)
            regex.append(f"({'|'.join(map(re.escape, texts))})")
        self._match = re.compile("".join(regex) + r"(?!\w)").match

    def match(self, text: str, at: int, facts: Facts) -> tuple[int, Facts | None] | None:
        """Where the line ends in `text`, and the facts with what it says; None if it is not there.

        The facts are None where the line contradicts those known.
        """
        found = self._match(text, at)
        if not found:
            return None
        new: Facts | None = dict(facts)
        for (variable, texts), shown in zip(self._slots, found.groups(), strict=True):
            values = {value for value, value_text in texts.items() if value_text == shown}
            if new is not None:
                new[variable] &= values
                new = new if new[variable] else None
        return found.end(), narrow(new) if new is not None else None


def narrow(facts: Facts) -> Facts | None:
    """The facts with what follows from them, names having a gender; None if they contradict each other."""
    facts["gender"] &= frozenset(GENDER_OF[name] for name in facts["name"])
    facts["name"] = frozenset(name for name in facts["name"] if GENDER_OF[name] in facts["gender"])
    return facts if all(facts.values()) else None


def all_facts(plot_name: str) -> Facts:
    """Everything that a plot leaves open."""
    plot = PLOTS[plot_name]
    facts = {variable: frozenset(values) for variable, values in VARIABLES.items()}
    return facts | {"object": frozenset(plot.objects), "color": frozenset(plot.colors)}


def story_words() -> frozenset[str]:
    """All words that a story may have."""
    lines = [line for plot in PLOTS.values() for stage in plot.stages.values() for line in stage]
    texts = [SLOT.sub(" ", line) for line in lines]
    texts += [text for _, values in SLOTS.values() for text in values.values()]
    return frozenset(word for text in texts for word in WORD.findall(text))
