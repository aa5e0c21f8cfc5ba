"""Options of several commands, under llama.cpp's names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
Option = Callable[[Any], Any]

MAX_STEPS = 1000  # of a range


def with_options(options: Sequence[Option]) -> Callable[[Command], Command]:
    """A decorator: all of `options`, shown in this order."""

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def number(*names: str, default: int | None, text: str, least: int | None = None) -> Option:
    """An integer >= `least`, or >= the default."""
    kind = click.IntRange(min=default if least is None else least)
    return click.option(*names, type=kind, default=default, show_default=True, metavar="N", help=text)


def real(*names: str, default: float | None, text: str) -> Option:
    """A number; its range is checked by the library."""
    return click.option(*names, type=float, default=default, show_default=True, metavar="X", help=text)


class Integers(click.ParamType):  # type: ignore[type-arg]
    """A comma list of integers and ranges: 1,2,4 or 1-8 or 0-64+16 or 1-32*2, as in llama-bench."""

    name = "list"

    def __init__(self, least: int = 0) -> None:
        self.least = least

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """The numbers, in order."""
        if isinstance(value, tuple):
            return value
        found: list[int] = []
        for part in str(value).split(","):
            match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9})(?:([+*])(\d{1,9}))?)?", part.strip())
            numbers = _range(*match.groups()) if match else []
            if not numbers or min(numbers) < self.least:
                what = f"expected numbers >= {self.least} such as 1,2,4 or 1-8*2, found {part!r}"
                self.fail(what, param, ctx)
            found += numbers
        return tuple(found)


def _range(first: str, last: str | None, op: str | None, by: str | None) -> list[int]:
    """first, first op by, ... up to last; [] if that would not end."""
    at, end, step = int(first), int(first if last is None else last), int(by or 1)
    found: list[int] = []
    while at <= end:
        found.append(at)
        after = at * step if op == "*" else at + step
        if after <= at or len(found) > MAX_STEPS:
            return []
        at = after
    return found


class Pair(click.ParamType):  # type: ignore[type-arg]
    """Two numbers, as in -pg 512,128."""

    name = "pair"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """The two."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,9}),(\d{1,9})", str(value))
        if not match or "0" in match.groups():
            self.fail(f"expected two numbers such as 512,128, found {value!r}", param, ctx)
        return int(match[1]), int(match[2])


class Words(click.ParamType):  # type: ignore[type-arg]
    """A comma list of words out of `known`."""

    name = "list"

    def __init__(self, known: Sequence[str]) -> None:
        self.known = known

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """The words, in order."""
        if isinstance(value, tuple):
            return value
        words = tuple(str(value).split(","))
        if wrong := [w for w in words if w not in self.known]:
            self.fail(f"expected {' or '.join(self.known)}, found {wrong[0]!r}", param, ctx)
        return words


def integers(*names: str, text: str, least: int = 0) -> Option:
    """A list of numbers that may be given in parts; flatten() puts them together."""
    return click.option(*names, type=Integers(least), multiple=True, metavar="N,...", help=text)


def flatten(parts: Sequence[Sequence[int]], default: Sequence[int]) -> list[int]:
    """The numbers of all parts, or the default if none was given."""
    return [n for part in parts for n in part] or list(default)


def model_option(multiple: bool = False) -> Option:
    """-m, --model; None, or no models, for the bundled one"""
    text = "A GGUF file, a Hugging Face folder or org/repo[:quant] of the hub; by default the storyteller."
    more = " Repeatable." if multiple else ""
    return click.option("-m", "--model", multiple=multiple, metavar="MODEL", help=text + more)


threads_option = click.option(
    "-t",
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Threads; by default one per physical core that this process may use.",
)
compute_option = click.option(
    "--compute",
    type=click.Choice(("auto", "f32", "bf16")),
    default="auto",
    show_default=True,
    help="What the weights become: f32, slow, the reference; bf16, faster for prompts on CPUs with AMX.",
)
quantize_option = click.option(
    "--quantize",
    type=click.Choice(("q8_0", "q4_0")),
    help="What weights of 16 or 32 bits become in memory.",
)
CACHE_TYPES = ("f16", "bf16", "f32", "q8_0")  # _core.KV_DTYPES, which --help need not load
cache_type_option = click.option(
    "-ctk",
    "--cache-type",
    "--cache-type-k",
    "cache_type",
    type=click.Choice(CACHE_TYPES),
    help="Type of the KV cache; by default f16, and f32 under --compute f32.",
)
hugepages_option = click.option("--no-hugepages", is_flag=True, help="Ask the system for no huge pages.")
mlock_option = click.option("--mlock", is_flag=True, help="Keep the weights from being swapped out.")
