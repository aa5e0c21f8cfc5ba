"""Broken GGUF files by the thousand.

    python tests/mutate.py FILE.gguf -n 3000 --seed 1 --load llm --keep DIR

FILE must be valid: it is parsed, so that mutations hit lengths, types, offsets and values instead
of random bytes. Mutation i of a seed is always the same. `fuzzrun` loads them in a child process.
"""

from __future__ import annotations

import math
import random
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

ARRAY, STRING = 9, 8
CODES = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q"}
CODES |= {11: "<q", 12: "<d"}
SAMPLES = 24  # elements of each array whose positions are kept


@dataclass(frozen=True)
class Field:
    """One field of the file: `kind` is what it is, `group` the pair or tensor it belongs to."""

    kind: str  # length, type, number, text, n_dims, dim, tensor type, offset
    group: str
    label: str
    at: int
    code: str

    @property
    def size(self) -> int:
        return struct.calcsize(self.code)


@dataclass
class Layout:
    """A valid file and where everything lies in it. Spans are (begin, end) in bytes."""

    data: bytes
    fields: list[Field] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)
    tensors: list[tuple[int, int]] = field(default_factory=list)
    elements: list[tuple[int, int, int]] = field(default_factory=list)  # position of length, span
    header_end: int = 0
    alignment: int = 32

    def pick(self, rng: random.Random, *kinds: str) -> Field:
        """A field of these kinds; every pair and tensor is as likely, however many it has."""
        groups: dict[str, list[Field]] = {}
        for f in self.fields:
            if f.kind in kinds:
                groups.setdefault(f.group, []).append(f)
        return rng.choice(groups[rng.choice(sorted(groups))])

    def splice(self, *edits: tuple[int, int, bytes]) -> bytes:
        """The file with header spans replaced and the tensor data aligned again."""
        head, last = [], 0
        for begin, end, new in sorted(edits):
            head += [self.data[last:begin], new]
            last = end
        header = b"".join([*head, self.data[last : self.header_end]])
        data_start = -(-self.header_end // self.alignment) * self.alignment
        return header + bytes(-len(header) % self.alignment) + self.data[data_start:]


class Parser:
    """Builds the Layout of a valid file."""

    def __init__(self, data: bytes) -> None:
        self.layout, self.data, self.at, self.group = Layout(data), data, 0, "header"

    def number(self, kind: str, label: str, code: str, keep: bool = True) -> Any:
        value = struct.unpack_from(code, self.data, self.at)[0]
        if keep:
            self.layout.fields.append(Field(kind, self.group, label, self.at, code))
        self.at += struct.calcsize(code)
        return value

    def text(self, label: str, keep: bool = True) -> str:
        n = self.number("length", f"{label} length", "<Q", keep)
        return str(self.number("text", label, f"{n}s", keep), "utf-8")

    def value(self, kind: int, label: str, keep: bool = True) -> Any:
        if kind == STRING:
            return self.text(label, keep)
        if kind != ARRAY:
            return self.number("number", label, CODES[kind], keep)
        element = self.number("type", f"{label} element type", "<I")
        length_at = self.at
        n = self.number("length", f"{label} length", "<Q")
        for i in range(n):
            kept = i < SAMPLES // 3 or i >= n - SAMPLES // 3 or i % max(1, n // SAMPLES) == 0
            begin = self.at
            self.value(element, f"{label}[{i}]", kept)
            if kept:
                self.layout.elements.append((length_at, begin, self.at))
        return None

    def pair(self, i: int) -> None:
        begin, self.group = self.at, f"metadata[{i}]"
        key = self.text(f"metadata[{i}] key")
        value = self.value(self.number("type", f"{key} value type", "<I"), key)
        self.layout.pairs.append((begin, self.at))
        if key == "general.alignment":
            self.layout.alignment = value

    def tensor(self, i: int) -> None:
        begin, self.group = self.at, f"tensor[{i}]"
        name = self.text(f"tensor[{i}] name")
        for k in range(self.number("n_dims", f"{name} n_dims", "<I")):
            self.number("dim", f"{name} dims[{k}]", "<Q")
        self.number("tensor type", f"{name} type", "<I")
        self.number("offset", f"{name} offset", "<Q")
        self.layout.tensors.append((begin, self.at))

    def parse(self) -> Layout:
        self.number("type", "magic", "<I")
        self.number("type", "version", "<I")
        n_tensors = self.number("length", "tensor_count", "<Q")
        n_kv = self.number("length", "metadata_kv_count", "<Q")
        for i in range(n_kv):
            self.pair(i)
        for i in range(n_tensors):
            self.tensor(i)
        self.layout.header_end = self.at
        return self.layout


# ---- values that break things


def nasty_int(rng: random.Random, old: int, code: str) -> int:
    bits = 8 * struct.calcsize(code)
    edges = [
        0,
        1,
        2,
        3,
        7,
        old - 1,
        old + 1,
        old * 2,
        old // 2,
        old + 256,
        -1,
        -2,
        rng.getrandbits(64),
    ]
    edges += [1 << k for k in (7, 8, 15, 16, 20, 24, 31, 32, 40, 61, 62, 63) if k < bits]
    edges += [(1 << k) - 1 for k in (7, 15, 16, 31, 32, 62, 63, 64) if k <= bits]
    n = rng.choice(edges) % (1 << bits)
    return n - (1 << bits) if code.islower() and n >> (bits - 1) else n


def nasty_number(rng: random.Random, old: Any, code: str) -> Any:
    if code not in ("<f", "<d"):
        return nasty_int(rng, old, code)
    edges = [0.0, -0.0, math.nan, math.inf, -math.inf, 1e-45, 3e38, -1.0, -old, old / 2, 1e9]
    return rng.choice(edges)


def nasty_text(rng: random.Random, layout: Layout, old: bytes) -> bytes:
    other = layout.pick(rng, "text")
    known = layout.data[other.at : other.at + other.size]
    texts = [b"", b"\0", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"A" * 300]
    texts += [known, known, old + b"\0", old[:-1], old + old, old.upper(), "世界".encode()]
    texts += [b"{{ 0 / 0 }}", b"{% for i in range(10**9) %}x{% endfor %}", b"{{ ''.__class__ }}"]
    texts += [rng.randbytes(len(old)), b"%s%n%p" * 20, b"A" * 70000]
    return rng.choice(texts)


# ---- mutations in place: (rng, layout, buffer) -> what was done

Edit = Callable[[random.Random, Layout, bytearray], str]
Rebuild = Callable[[random.Random, Layout], tuple[str, bytes]]


def put(buf: bytearray, f: Field, new: Any) -> str:
    old = struct.unpack_from(f.code, buf, f.at)[0]
    struct.pack_into(f.code, buf, f.at, new)
    return f"{f.label}: {old!r:.60} -> {new!r:.60}"


def old_of(layout: Layout, f: Field) -> Any:
    return struct.unpack_from(f.code, layout.data, f.at)[0]


def flip(rng: random.Random, layout: Layout, buf: bytearray) -> str:
    end = len(buf) if rng.random() < 0.2 else layout.header_end
    at = [rng.randrange(end) for _ in range(rng.randint(1, 8))]
    for i in at:
        buf[i] ^= rng.randint(1, 255)
    return f"flip bytes {at}"


def edit_length(rng: random.Random, layout: Layout, buf: bytearray) -> str:
    f = layout.pick(rng, "length")
    old = old_of(layout, f)
    new = rng.choice([len(buf), len(buf) // 8, len(buf) - f.at - 8, nasty_int(rng, old, f.code)])
    return put(buf, f, new)


def edit_type(rng: random.Random, layout: Layout, buf: bytearray) -> str:
    f = layout.pick(rng, "type", "tensor type")
    new = rng.choice([rng.randrange(14), rng.randrange(45), nasty_int(rng, old_of(layout, f), f.code)])
    return put(buf, f, new)


def edit_number(rng: random.Random, layout: Layout, buf: bytearray) -> str:
    f = layout.pick(rng, "number")
    return put(buf, f, nasty_number(rng, old_of(layout, f), f.code))


def edit_text(rng: random.Random, layout: Layout, buf: bytearray) -> str:
    f = layout.pick(rng, "text")
    old = old_of(layout, f)
    return put(buf, f, nasty_text(rng, layout, old)[: f.size].ljust(f.size, b"x"))


def edit_dims(rng: random.Random, layout: Layout, buf: bytearray) -> str:
    f = layout.pick(rng, "n_dims", "dim", "dim", "dim")
    old = old_of(layout, f)
    near = [g for g in layout.fields if g.group == f.group and g.kind == "dim" and g.at != f.at]
    if f.kind == "dim" and near and rng.random() < 0.3:
        other = rng.choice(near)
        value = old_of(layout, other)
        return f"swap {put(buf, other, old)}, {put(buf, f, value)}"
    return put(buf, f, nasty_int(rng, old, f.code))


def edit_offset(rng: random.Random, layout: Layout, buf: bytearray) -> str:
    f = layout.pick(rng, "offset")
    old = old_of(layout, f)
    taken = old_of(layout, layout.pick(rng, "offset"))
    near = [taken, old + 32, old - 32, old + 1, len(buf), len(buf) // 32 * 32]
    return put(buf, f, rng.choice([*near, nasty_int(rng, old, f.code)]) % (1 << 64))


def edit_weights(rng: random.Random, layout: Layout, buf: bytearray) -> str:
    """NaN, infinity, the largest float or zero all over a stretch of tensor data."""
    begin = rng.randrange(layout.header_end, len(buf)) & ~3
    word = rng.choice([b"\0\0\xc0\x7f", b"\0\0\x80\xff", b"\xff\xff\x7f\x7f", bytes(4), b"\xff" * 4])
    n = min(rng.choice([1, 16, 4096]), (len(buf) - begin) // 4)
    buf[begin : begin + 4 * n] = word * n
    return f"{n} words {word.hex()} at {begin}"


# ---- mutations that move bytes; the file stays well-formed around them


def cut(rng: random.Random, layout: Layout) -> tuple[str, bytes]:
    f = rng.choice(layout.fields)
    n = rng.choice([f.at, f.at + 1, f.at + f.size, rng.randrange(len(layout.data)), len(layout.data)])
    more = rng.randbytes(rng.choice([0, 0, 1, 40]))
    return f"cut to {n} bytes, add {len(more)}", layout.data[:n] + more


def resize_text(rng: random.Random, layout: Layout) -> tuple[str, bytes]:
    f = layout.pick(rng, "text")
    old = layout.data[f.at : f.at + f.size]
    new = nasty_text(rng, layout, old)
    edit = (f.at - 8, f.at + f.size, struct.pack("<Q", len(new)) + new)
    return f"{f.label}: {old!r:.60} -> {len(new)} bytes {new!r:.60}", layout.splice(edit)


def change_count(rng: random.Random, layout: Layout) -> tuple[str, bytes]:
    """A pair, a tensor or an array element is dropped or doubled, its count adjusted."""
    spans = [("tensor", 8, *s) for s in layout.tensors] + [("pair", 16, *s) for s in layout.pairs]
    lists = [spans, [("element", *e) for e in layout.elements] or spans]
    what, count_at, begin, end = rng.choice(rng.choice(lists))
    by = rng.choice([-1, 1])
    count = struct.unpack_from("<Q", layout.data, count_at)[0] + by
    new = layout.data[begin:end] * (1 + by)
    edits = [(count_at, count_at + 8, struct.pack("<Q", count)), (begin, end, new)]
    return f"{what} at {begin} {'dropped' if by < 0 else 'doubled'}", layout.splice(*edits)


def swap(rng: random.Random, layout: Layout) -> tuple[str, bytes]:
    """Two pairs, tensors or strings change places."""
    texts = [(f.at - 8, f.at + f.size) for f in layout.fields if f.kind == "text"]
    spans = rng.choice([s for s in (layout.pairs, layout.tensors, texts) if len(s) > 1])
    (a, b), (c, d) = sorted(rng.sample(spans, 2))
    return f"swap {a}:{b} and {c}:{d}", layout.splice((a, b, layout.data[c:d]), (c, d, layout.data[a:b]))


EDITS: list[Edit] = [
    flip, edit_length, edit_type, edit_number, edit_number, edit_text, edit_dims, edit_offset,
    edit_weights,
]  # fmt: skip
REBUILDS: list[Rebuild] = [cut, resize_text, change_count, change_count, swap]
NEEDS: dict[Edit, str] = {edit_dims: "dim", edit_offset: "offset", edit_number: "number"}
NEEDS[edit_weights] = "offset"


def mutate(layout: Layout, seed: int, i: int) -> tuple[str, bytes]:
    """Mutation i of a seed: what it is, and the bytes of the file."""
    rng = random.Random(f"{seed}:{i}")
    kinds = {f.kind for f in layout.fields}
    edits = [e for e in EDITS if NEEDS.get(e, "length") in kinds]
    which = rng.randrange(len(edits) + len(REBUILDS))
    if which >= len(edits):
        return REBUILDS[which - len(edits)](rng, layout)
    buf = bytearray(layout.data)
    chain = [edits[which], *rng.choices(edits, k=rng.choice([0, 0, 0, 1, 2]))]
    return "; ".join(edit(rng, layout, buf) for edit in chain), bytes(buf)


def mutations(data: bytes, seed: int, n: int) -> Iterator[tuple[str, bytes]]:
    """n broken files made from the valid file `data`: (description, bytes)."""
    layout = Parser(data).parse()
    for i in range(n):
        yield mutate(layout, seed, i)


if __name__ == "__main__":
    from fuzzrun import main

    sys.exit(main())
