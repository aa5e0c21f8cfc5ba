"""The time and memory that a template may take, and how large the result of an operation may become.

`within_limits` gives a render its budget. `made` weighs every value that the template makes, so
that whatever reads it later is bounded too. Guards, by the name of an operation, say how large its
result may be before it is made. It all happens in the rendering thread, without signals or tracing.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")
Guard = Callable[..., int]  # called as the operation itself: bytes of its result

MAX_SECONDS = 2.0  # of this thread's CPU time, for a render
MAX_VALUE = 32 << 20  # bytes of one value
MAX_WORK = 256 << 20  # bytes of all values made in a render
MAX_BITS = 4096  # of an integer
MAX_WIDTH = 1000  # of a formatted field, and of a precision
MAX_PATH = 1000  # characters of an attribute's path, such as function.name
MAX_SLOW = 16 << 10  # bytes given to filters that may take quadratic time
ELEMENT = 64  # bytes for each element of a container
ENCODINGS = ("utf-8", "utf8", "ascii", "latin-1")  # some of the others take quadratic time

CONTAINERS = (list, tuple, set, frozenset, KeysView, ValuesView, ItemsView, Mapping)


class LimitError(Exception):
    """A template wants more time or memory than it may have."""


class _Budget(threading.local):
    """What this thread's render may still use: CPU time up to `end`, `left` bytes.

    The thread's clock is slow to read, and cannot have passed `end` before `wall`."""

    end = wall = 0.0
    left = 0


_budget = _Budget()


def within_limits(work: Callable[[], T]) -> T:
    """work() with a fresh budget for this thread. Raises LimitError when it is used up."""
    before = _budget.end, _budget.wall, _budget.left
    _budget.end, _budget.wall = time.thread_time() + MAX_SECONDS, time.perf_counter() + MAX_SECONDS
    _budget.left = MAX_WORK
    try:
        return work()
    finally:
        _budget.end, _budget.wall, _budget.left = before


def tick() -> None:
    """A look at the clock."""
    if time.perf_counter() > _budget.wall and time.thread_time() > _budget.end:
        raise LimitError(f"takes more than {MAX_SECONDS:g} s")


def spend(n: int) -> None:
    """Takes n bytes off the budget."""
    _budget.left -= n
    if _budget.left < 0:
        raise LimitError(f"makes values of more than {MAX_WORK} bytes in all")


def weigh(value: object) -> int:
    """Bytes of a value with all that its text would show, up to MAX_VALUE.

    Shared parts count each time they are seen: [x, x] weighs twice as much as [x]."""
    total, todo = 0, [value]
    while todo:
        x, inside = todo.pop(), None
        if isinstance(x, (str, bytes)):
            total += sys.getsizeof(x)
        elif isinstance(x, int):
            _check_bits(x.bit_length())
        elif isinstance(x, CONTAINERS):
            inside = x
            total += ELEMENT * len(x)
        if total > MAX_VALUE:
            too_large()
        if inside:
            todo += inside
            todo += inside.values() if isinstance(inside, Mapping) else ()
    return total


def made(value: Any) -> Any:
    """The value, weighed and paid for; what an iterator yields, as it comes."""
    tick()
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, str):
        spend(weigh(value))
    elif isinstance(value, Iterator):
        return map(made, value)
    else:
        weigh(value)
        spend(ELEMENT * len(value) if isinstance(value, CONTAINERS) else sys.getsizeof(value))
    return value


def too_large() -> NoReturn:
    """Raises LimitError about a value."""
    raise LimitError(f"makes a value of more than {MAX_VALUE} bytes")


def check(guard: Guard | None, /, *args: Any, **named: Any) -> None:
    """Looks at the clock and asks the guard, if there is one."""
    tick()
    if guard is not None and guard(*args, **named) > MAX_VALUE:
        too_large()


def check_path(at: int, args: tuple[Any, ...], named: dict[str, Any]) -> None:
    """The path of an attribute in a filter's arguments is not so long that walking it takes time."""
    path = named.get("attribute", args[at] if at < len(args) else None)
    if isinstance(path, str) and len(path) > MAX_PATH:
        raise LimitError(f"takes an attribute's path of {len(path)} characters, expected at most {MAX_PATH}")


def _check_bits(n: int) -> None:
    if n > MAX_BITS:
        raise LimitError(f"makes an integer of {n} bits, expected at most {MAX_BITS}")


# ---- operators


def _times(a: Any, b: Any) -> int:
    if isinstance(a, int) and isinstance(b, int):
        _check_bits(a.bit_length() + b.bit_length() - 1)
        return 0
    many, n = (b, a) if isinstance(a, int) else (a, b)
    if not isinstance(n, int):
        return 0
    return n * (len(many) if isinstance(many, (str, bytes)) else weigh(many))


def _power(a: Any, b: Any) -> int:
    if isinstance(a, int) and isinstance(b, int) and abs(a) > 1:
        _check_bits((a.bit_length() - 1) * b)
    return 0


def _percent(text: Any, args: Any) -> int:
    if not isinstance(text, (str, bytes)):
        return 0
    pattern = text if isinstance(text, str) else text.decode("latin-1")
    if re.search(r"%[^a-zA-Z%]*\*", pattern):
        raise LimitError("formats with '*' for a width")
    return _fields(pattern, "%", args)


def _fields(pattern: str, mark: str, args: Any) -> int:
    if any(len(n) > 5 or int(n) > MAX_WIDTH for n in re.findall(r"\d{4,}", pattern)):
        raise LimitError(f"formats with a number above {MAX_WIDTH}")
    return len(pattern) + pattern.count(mark) * (MAX_WIDTH + weigh(args))


OPERATORS: dict[str, Guard] = {"*": _times, "**": _power, "%": _percent}


# ---- methods of texts, bytes and integers


def _width(_: Any, width: Any = 80, *__: Any, **___: Any) -> int:
    return int(width)


def _braces(text: str, *args: Any, **named: Any) -> int:
    if re.search(r":[^{}]*\{", text):
        raise LimitError("formats with a field inside a field")
    return _fields(text, "{", [args, named])


def _replaced(text: Any, old: Any, new: Any, *_: Any, **__: Any) -> int:
    return len(text) + int(text.count(old) * len(new))


def _parts(text: Any, sep: Any = None, *_: Any, **__: Any) -> int:
    return ELEMENT * (len(text) // 2 if sep is None else text.count(sep))


def _joined(sep: Any, items: Any) -> int:
    return len(sep) * len(items) + (len(items) if isinstance(items, str) else sum(map(len, items)))


def _backwards(text: Any, sub: Any = None, *_: Any, **__: Any) -> int:
    """CPython may search backwards in the product of both lengths: at most 2**31 steps."""
    return max(_parts(text, sub), (len(text) * len(sub or "")) >> 6)


def _codec(text: Any, encoding: str = "utf-8", *_: Any, **__: Any) -> int:
    if encoding.lower() not in ENCODINGS:
        raise LimitError(f"asks for an encoding, expected one of {', '.join(ENCODINGS)}")
    return len(text)


METHODS: dict[str, Guard] = {
    **dict.fromkeys(("center", "ljust", "rjust", "zfill"), _width),
    **dict.fromkeys(("rfind", "rindex", "rsplit", "rpartition"), _backwards),
    **dict.fromkeys(("encode", "decode"), _codec),
    "expandtabs": lambda text, tabsize=8: len(text) * max(tabsize, 1),
    "format": _braces,
    "format_map": lambda text, named: _braces(text, named),
    "join": _joined,
    "replace": _replaced,
    "split": _parts,
    "splitlines": lambda text, *_, **__: _parts(text),
    "to_bytes": lambda n, length=1, *_, **__: length,
    "translate": lambda text, table: len(text) * weigh(table),
}


# ---- filters


def _elements(value: Any, *_: Any, **__: Any) -> int:
    """A text becomes a list of characters or words."""
    return ELEMENT * len(value) if isinstance(value, str) else 0


def _slow(*args: Any, **named: Any) -> int:
    if (found := weigh([args, named])) > MAX_SLOW:
        raise LimitError(f"gives {found} bytes to a slow filter, expected at most {MAX_SLOW}")
    return 0


def _indent(text: Any, width: Any = 4, *_: Any, **__: Any) -> int:
    return (str(text).count("\n") + 1) * (width if isinstance(width, int) else len(width))


def _round(_: Any, precision: int = 0, *__: Any, **___: Any) -> int:
    if abs(precision) > MAX_WIDTH:
        raise LimitError(f"rounds to {precision} digits, expected at most {MAX_WIDTH}")
    return 0


def _sum(_: Any, attribute: Any = None, start: Any = 0) -> int:
    if not isinstance(start, (int, float)):  # to add up lists takes quadratic time
        raise LimitError(f"adds up from a {type(start).__name__}, expected a number")
    return 0


FILTERS: dict[str, Guard] = {
    **dict.fromkeys(("pprint", "striptags", "urlize", "wordwrap", "xmlattr"), _slow),
    **dict.fromkeys(("groupby", "list", "max", "min", "slice", "sort", "title", "unique"), _elements),
    "batch": lambda value, linecount, *_, **__: ELEMENT * linecount + _elements(value),
    "center": _width,
    "format": lambda text, *args, **named: _percent(str(text), named or args),
    "indent": _indent,
    "replace": lambda text, old, new, *_, **__: _replaced(str(text), str(old), str(new)),
    "round": _round,
    "sum": _sum,
    "wordcount": _elements,
}
# Where the path of an attribute stands among a filter's arguments, if not behind its name.
PATHS = {"selectattr": 0, "rejectattr": 0, "groupby": 0, "sum": 0, "join": 1, "unique": 1}
PATHS |= {"min": 1, "max": 1, "sort": 2, "map": 99}
