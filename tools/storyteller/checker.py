"""Is a text a coherent story? Reads it line by line and keeps what it says of hero, place and object."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

from .common import Plot
from .grammar import PLOTS, WORD, Facts, Pattern, all_facts, story_words

BREAKS = (" ", "\n\n")


@dataclass(frozen=True)
class Verdict:
    """ok, or the reason why not. `facts`: variable -> value, of all that the story tells."""

    ok: bool
    reason: str = ""
    plot: Plot | None = None
    facts: dict[str, str] = field(default_factory=dict)


@dataclass
class _Furthest:
    """How far any reading of the text came."""

    at: int = 0
    reason: str = "it does not begin as a story"

    def note(self, at: int, reason: str) -> None:
        if at > self.at:
            self.at, self.reason = at, reason


def check(text: str) -> Verdict:
    """Whether `text` is one story whose hero, friend, place and object stay the same, whose lines are
    those of one plot in their order, with the ending of that plot, without unknown words, to its end."""
    unknown = set(WORD.findall(text)) - _words()
    if unknown:
        return Verdict(False, f"unknown words: {', '.join(sorted(unknown))}")
    furthest = _Furthest()
    for plot in PLOTS.values():
        facts = _read(text, 0, plot, list(plot.stages), all_facts(plot.name), furthest)
        if facts is not None:
            told = {name: next(iter(values)) for name, values in facts.items() if len(values) == 1}
            return Verdict(True, "", plot, told)
    return Verdict(False, f"{furthest.reason}: {text[furthest.at :][:80]!r}")


def _read(
    text: str, at: int, plot: Plot, stages: list[str], facts: Facts, furthest: _Furthest
) -> Facts | None:
    """The facts if the rest of the text, from `at`, is told by these stages; else None."""
    if not stages:
        if at == len(text):
            return facts
        furthest.note(at, f"{plot.name}: it goes on after its end")
        return None
    stage, *rest = stages
    for line in plot.stages[stage]:
        if not line:
            found = _read(text, at, plot, rest, facts, furthest)
            if found is not None:
                return found
        for spelling in _spellings(line):
            found = _read_line(text, at, spelling, plot, stages, facts, furthest)
            if found is not None:
                return found
    furthest.note(at, f"{plot.name}: no {stage.lstrip('+')}" if at < len(text) else "it has no end")
    return None


def _read_line(
    text: str, at: int, line: str, plot: Plot, stages: list[str], facts: Facts, furthest: _Furthest
) -> Facts | None:
    if at:
        gap = next((gap for gap in reversed(BREAKS) if text.startswith(gap, at)), None)
        if gap is None:
            return None
        at += len(gap)
    found = _pattern(line).match(text, at, facts)
    if found is None:
        return None
    end, new = found
    if new is None:
        furthest.note(at + 1, f"{plot.name}: {stages[0].lstrip('+')} contradicts what was told")
        return None
    return _read(text, end, plot, stages[1:], new, furthest)


@cache
def _spellings(line: str) -> list[str]:
    """A line that names the thing, with its color and without: to say it or not is no fault."""
    bare = line.replace("{C} {O}", "{O}")
    return list(dict.fromkeys((line, bare, bare.replace(" {O}", " {C} {O}")))) if line else []


@cache
def _pattern(line: str) -> Pattern:
    return Pattern(line)


@cache
def _words() -> frozenset[str]:
    return story_words()
