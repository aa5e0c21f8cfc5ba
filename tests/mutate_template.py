"""Broken and hostile chat templates by the thousand.

    python tests/mutate_template.py FILE.jinja ... -n 3000 --seed 1

Pieces of valid templates are dropped, doubled, swapped, mixed with those of others, and replaced by
what takes time or memory. Mutation i of a seed is always the same. Every one must be rendered or
refused with a ChatTemplateError. Exit status: 0 if so, 1 if not; a hang of 30 s ends the process
with a traceback.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pyllama import ChatTemplate, ChatTemplateError

RENDERED, REFUSED, OTHER = "rendered", "refused", "other exception"
ADDRESS_SPACE = 4 << 30  # bytes
HANG = 30.0  # seconds
PIECES = re.compile(r"\{%-?|-?%\}|\{\{-?|-?\}\}|'[^'\n]*'|\"[^\"\n]*\"|\w+|\s+|.", re.S)
NUMBERS = ["0", "-1", "10**9", "99999", "10**10**10", "1e308", "1000000000", "2**4000", "2", "7"]
VALUES = [
    "'a'", "'b c'", "none", "messages", "messages[0]", "ns.x", "[]", "{}", "range(99999)", "undefined", "x",
    "messages[1].content", "(1, 2)", "'%s'", "'{0}'", "range(9)|map('string')", "''", "dict(a=1)", "y",
    "'\\t\\n'", "'a'|safe", "1.5", "true", "namespace()", "cycler(1, 2)", "self", "loop", "'ab'", "[1, 2, 3]",
]  # fmt: skip
OPERATORS = ["+", "-", "*", "**", "%", "~", "//", "/", "in", "==", "<", "and", "or", "if"]
FILTERS = [
    "center({n})", "indent({n})", "list", "join({v})", "tojson", "tojson(indent={n})", "string", "length",
    "replace({v}, {v})", "batch({n}, {v})", "slice({n})", "format({v})", "sum(start={v})", "sort", "unique",
    "map('{f}')", "select('in', {v})", "groupby({v})", "round({n})", "wordwrap({n})", "urlize", "attr({v})",
    "truncate({n})", "int", "float", "first", "reverse", "items", "dictsort", "xmlattr", "default({v})",
]  # fmt: skip
METHODS = [
    "center({n})", "ljust({n})", "zfill({n})", "expandtabs({n})", "replace({v}, {v})", "join({v})",
    "format({v}, {n})", "split({v})", "rfind({v})", "encode({v})", "to_bytes({n}, 'big')", "translate({v})",
    "items()", "append({v})", "__class__", "__init__.__globals__", "format_map({v})", "splitlines()",
]  # fmt: skip
STATEMENTS = [
    "{% for x in {e} %}{s}{% endfor %}", "{% for x in {e} recursive %}{s}{{ loop({e}) }}{% endfor %}",
    "{% for x in range(99999) %}{s}{% endfor %}", "{% for x in {e} if {e} %}{s}{% endfor %}", "{{ {e} }}",
    "{% if {e} %}{s}{% else %}{s}{% endif %}", "{% set x = {e} %}", "{% set y = {e} %}{{ {e} }}",
    "{% set ns = namespace(x={e}) %}{% for i in range(99) %}{s}{% endfor %}", "{% set ns.x = ns.x ~ ns.x %}",
    "{% set ns.x = ns.x + ns.x %}", "{% set ns.x = [ns.x, ns.x] %}", "{% set ns.x = {'a': ns.x, 1: ns.x} %}",
    "{% set ns.x = {e} %}", "{% macro m(x) %}{s}{% endmacro %}{{ m({e}) }}", "{{ m({e}) }}{{ m({e}) }}",
    "{% call m({e}) %}{s}{% endcall %}", "{% filter center({n}) %}{s}{% endfilter %}", "{% break %}", "text",
    "{% set x %}{s}{% endset %}", "{% generation %}{s}{% endgeneration %}", "{% include {e} %}",
    "{% autoescape {e} %}{s}{% endautoescape %}", "{{ raise_exception({e}) }}", "{{ strftime_now({e}) }}",
    "{% block b %}{s}{{ self.b() }}{% endblock %}", "{% with x = {e} %}{s}{% endwith %}",
]  # fmt: skip
BROKEN = ["{% endfor %}", "{% endif %}", "{%", "}}", "{# ", "{% raw %}", "{% for %}", "(", "'", "\\"]
PRELUDE = (
    "{% set ns = namespace(x='ab') %}{% set x, y = 'text', [1, 2] %}{% macro m(x) %}{{ x }}{% endmacro %}"
)
MESSAGES = [
    {"role": "system", "content": "You are terse.\n"},
    {"role": "user", "content": "Hello, <b>world</b>! \u4e16\u754c"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHi."},
    {"role": "user", "content": "Name a colour."},
]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


def fill(rng: random.Random, text: str, depth: int = 3) -> str:
    """{n}, {v}, {f}, {e} and {s} become a number, a value, a filter, an expression, a statement."""

    def new(found: re.Match[str]) -> str:
        if found[1] in "nv":
            return rng.choice(NUMBERS if found[1] == "n" else VALUES)
        if found[1] == "f":
            return rng.choice(FILTERS).partition("(")[0]
        return expression(rng, depth) if found[1] == "e" else statements(rng, depth - 1)

    return re.sub(r"\{([nvfes])\}", new, text)


def expression(rng: random.Random, depth: int) -> str:
    """Nonsense that parses."""
    kind = rng.randrange(6) if depth > 0 else 5
    if kind == 0:
        return f"({expression(rng, depth - 1)}) {rng.choice(OPERATORS)} ({expression(rng, depth - 1)})"
    if kind == 1:
        return f"({expression(rng, depth - 1)})|{fill(rng, rng.choice(FILTERS))}"
    if kind == 2:
        return f"({expression(rng, depth - 1)}).{fill(rng, rng.choice(METHODS))}"
    if kind == 3:
        return f"[{expression(rng, depth - 1)}, {expression(rng, depth - 1)}]"
    if kind == 4:
        return f"({expression(rng, depth - 1)})[{rng.choice(NUMBERS)}:]"
    return rng.choice(rng.choice([VALUES, VALUES, NUMBERS]))


def statements(rng: random.Random, depth: int) -> str:
    """Up to three, whole."""
    n = rng.randrange(4) if depth > 0 else 0
    return "".join(fill(rng, rng.choice(STATEMENTS), depth) for _ in range(n))


def mutate(texts: Sequence[str], seed: int, i: int) -> str:
    """Mutation i of a seed: in one of three, pieces are moved; in the others it stays a template."""
    rng = random.Random(f"{seed}:{i}")
    pieces, other = PIECES.findall(rng.choice(texts)), PIECES.findall(rng.choice(texts))
    outside = [k + 1 for k, piece in enumerate(pieces) if piece in ("%}", "-%}", "}}", "-}}")]
    words = [k for k, piece in enumerate(pieces) if re.fullmatch(r"'.*'|\d+|messages", piece, re.S)]
    if i % 3 == 0:
        for _ in range(rng.choice([1, 2, 5])):
            at, n, begin = (
                rng.randrange(len(pieces) + 1),
                rng.choice([0, 1, 10, 100]),
                rng.randrange(len(other)),
            )
            pieces[at : at + n] = rng.choice(
                [
                    [],
                    pieces[at : at + n] * 2,
                    other[begin : begin + rng.choice([1, 50])],
                    [rng.choice(BROKEN)],
                ]
            )
    elif i % 3 == 1:
        for _ in range(rng.choice([1, 2, 5])):
            pieces[rng.choice(words)] = f"({expression(rng, 3)})"
    else:
        for at in sorted(rng.choices([0, *outside], k=rng.choice([1, 2, 5])), reverse=True):
            pieces.insert(at, statements(rng, 4))
    return ("" if i % 3 == 0 else PRELUDE) + "".join(pieces)


def attempt(text: str) -> tuple[str, str]:
    """Outcome and message of a template."""
    try:
        template = ChatTemplate(text, "mutation")
        template.render(MESSAGES, TOOLS, bos_token="<s>", eos_token="</s>")
    except ChatTemplateError as error:
        named = str(error).startswith("mutation: ")
        return (REFUSED, str(error)) if named else (OTHER, f"no source: {error}")
    except BaseException:
        return OTHER, traceback.format_exc()
    return RENDERED, ""


def main() -> int:
    """The command line; the exit status."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("files", nargs="+", type=Path, help="valid templates")
    p.add_argument("-n", type=int, default=1000, help="mutations")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--only", type=int, help="this mutation alone, shown")
    a = p.parse_args()
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    texts, counts, slowest = [f.read_text(encoding="utf-8") for f in a.files], Counter[str](), 0.0
    for i in range(a.n) if a.only is None else [a.only]:
        text = mutate(texts, a.seed, i)
        faulthandler.dump_traceback_later(HANG, exit=True)
        begin = time.process_time()
        outcome, message = attempt(text)
        slowest = max(slowest, time.process_time() - begin)
        faulthandler.cancel_dump_traceback_later()
        counts[outcome] += 1
        if outcome == OTHER or a.only is not None:
            print(f"seed {a.seed} mutation {i}: {outcome}\n{text}\n{message}", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    found = ", ".join(f"{counts[k]} {k}" for k in (RENDERED, REFUSED, OTHER))
    print(
        f"{counts.total()} mutations of seed {a.seed}: {found}; the slowest {slowest:.1f} s; peak {peak} MiB"
    )
    return int(counts[OTHER] > 0)


if __name__ == "__main__":
    sys.exit(main())
