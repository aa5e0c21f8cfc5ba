"""Random Llama files for tests, what their weights are, and a Model run by hand, without an engine."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import gguf
import numpy as np
from ggufwriter import F32_ID, write_gguf

import pyllama.model
from pyllama import _core
from pyllama.fusion import RULES, Rule, fuse
from pyllama.model import Model
from pyllama.weights import open_model
from pyllama.weights.gguf import GGUFFile
from pyllama.weights.source import ModelSource

T = TypeVar("T")
NORMAL, UNKNOWN, CONTROL, _, UNUSED, BYTE = range(1, 7)
# Where the blocks of a format have f16 scales, and what each is times, for random bytes elsewhere to
# become weights of mean about 0 and standard deviation about 1.
SCALES = {
    "Q4_0": {0: 1 / 4.6},
    "Q4_1": {0: 1 / 4.6, 2: -7.5 / 4.6},
    "Q5_0": {0: 1 / 9.2},
    "Q5_1": {0: 1 / 9.2, 2: -15.5 / 9.2},
    "Q8_0": {0: 1 / 74},
    "Q2_K": {80: 1 / 13.9, 82: 1.5 / 13.9},
    "Q3_K": {108: 1 / 43.4},
    "Q4_K": {0: 1 / 258, 2: 7.5 / 258},
    "Q5_K": {0: 1 / 527, 2: 15.5 / 527},
    "Q6_K": {208: 1 / 1367},
    "IQ4_NL": {0: 1 / 69},
    "IQ4_XS": {0: 1 / 1280},
}
FORMATS = ["F32", "BF16", "F16", *SCALES]
MERGES = ["\u2581", *"abcdefgh", "ab", "abc", "\u2581a", "\u2581ab", "de", "fgh"]
FIRST_MERGE = 3 + 256
EVERY_MEMBER = 1 << 50  # so many bytes of weights that no team is too large for them


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The dimensions of a random Llama. head_dim 0 is dim / n_heads; vocab_size is at least 259."""

    format: str = "F32"
    dim: int = 64
    hidden_dim: int = 172
    n_layers: int = 2
    n_heads: int = 4
    n_kv_heads: int = 2
    head_dim: int = 0
    vocab_size: int = 301
    tied: bool = False
    n_ctx: int = 512
    rope_base: float = 10000.0
    eps: float = 1e-5
    sharpness: float = 1.0  # of attention: what the queries are multiplied by
    seed: int = 1
    chat_template: str = ""


# ---- files


def _f16(rng: np.random.Generator, n: int, value: float) -> np.ndarray:
    """n scales of about `value`, as bytes [n, 2]."""
    return (value * rng.uniform(0.75, 1.25, n)).astype("<f2").view(np.uint8).reshape(n, 2)


def random_matrix(rng: np.random.Generator, format: str, rows: int, cols: int, std: float) -> bytes:
    """Rows of a matrix as a file holds them: mean about 0, standard deviation about `std`."""
    if format not in SCALES:
        w = (std * rng.standard_normal((rows, cols))).astype("<f4")
        if format == "BF16":
            return (w.view("<u4") >> 16).astype("<u2").tobytes()
        return w.astype({"F32": "<f4", "F16": "<f2"}[format]).tobytes()
    block, n_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[format]]
    assert cols % block == 0, f"{format} needs a multiple of {block} columns, not {cols}"
    n = rows * cols // block
    raw = rng.integers(0, 256, (n, n_bytes), np.uint8)
    for offset, factor in SCALES[format].items():
        raw[:, offset : offset + 2] = _f16(rng, n, std * factor)
    return raw.tobytes()


def vocabulary(n: int) -> list[tuple[str, str, Any]]:
    """Metadata of a SentencePiece vocabulary of n pieces: all bytes, some merges, fillers."""
    pieces = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)]
    pieces += [(f"<0x{i:02X}>", BYTE) for i in range(256)]
    assert n >= len(pieces), f"a vocabulary has at least {len(pieces)} pieces, not {n}"
    pieces += [(piece, NORMAL) for piece in MERGES]
    pieces += [(f"<unused_{i}>", UNUSED) for i in range(n - len(pieces))]
    return [
        ("tokenizer.ggml.model", "str", "llama"),
        ("tokenizer.ggml.tokens", "[str]", [piece for piece, _ in pieces[:n]]),
        ("tokenizer.ggml.scores", "[f32]", [-float(i) for i in range(n)]),
        ("tokenizer.ggml.token_type", "[i32]", [kind for _, kind in pieces[:n]]),
        ("tokenizer.ggml.bos_token_id", "u32", 1),
        ("tokenizer.ggml.eos_token_id", "u32", 2),
        ("tokenizer.ggml.unknown_token_id", "u32", 0),
    ]


def metadata(s: Shape) -> list[tuple[str, str, Any]]:
    """What a file of this shape says of itself."""
    head_dim = s.head_dim or s.dim // s.n_heads
    return [
        ("general.architecture", "str", "llama"),
        ("llama.context_length", "u32", s.n_ctx),
        ("llama.embedding_length", "u32", s.dim),
        ("llama.feed_forward_length", "u32", s.hidden_dim),
        ("llama.block_count", "u32", s.n_layers),
        ("llama.attention.head_count", "u32", s.n_heads),
        ("llama.attention.head_count_kv", "u32", s.n_kv_heads),
        ("llama.attention.key_length", "u32", head_dim),
        ("llama.attention.value_length", "u32", head_dim),
        ("llama.rope.dimension_count", "u32", head_dim),
        ("llama.rope.freq_base", "f32", s.rope_base),
        ("llama.attention.layer_norm_rms_epsilon", "f32", s.eps),
        *vocabulary(s.vocab_size),
        *([("tokenizer.chat_template", "str", s.chat_template)] if s.chat_template else []),
    ]


def write_model(path: str | os.PathLike[str], s: Shape) -> str:
    """Writes a random Llama and returns its path."""
    rng = np.random.default_rng(s.seed)
    head_dim = s.head_dim or s.dim // s.n_heads
    q, kv = s.n_heads * head_dim, s.n_kv_heads * head_dim
    tensors: list[tuple[str, list[int], int, bytes]] = []

    def matrix(name: str, rows: int, cols: int, std: float) -> None:
        kind = gguf.GGMLQuantizationType[s.format].value
        tensors.append((name, [cols, rows], kind, random_matrix(rng, s.format, rows, cols, std)))

    def norm(name: str) -> None:
        w = 1 + 0.1 * rng.standard_normal(s.dim)
        tensors.append((name, [s.dim], F32_ID, w.astype("<f4").tobytes()))

    matrix("token_embd.weight", s.vocab_size, s.dim, s.dim**-0.5 if s.tied else 1.0)
    for i in range(s.n_layers):
        norm(f"blk.{i}.attn_norm.weight")
        norm(f"blk.{i}.ffn_norm.weight")
        for name, rows, cols in (
            ("attn_q", q, s.dim),
            ("attn_k", kv, s.dim),
            ("attn_v", kv, s.dim),
            ("attn_output", s.dim, q),
            ("ffn_gate", s.hidden_dim, s.dim),
            ("ffn_up", s.hidden_dim, s.dim),
            ("ffn_down", s.dim, s.hidden_dim),
        ):
            scale = s.sharpness if name == "attn_q" else 1.0
            matrix(f"blk.{i}.{name}.weight", rows, cols, scale * cols**-0.5)
    norm("output_norm.weight")
    if not s.tied:
        matrix("output.weight", s.vocab_size, s.dim, s.dim**-0.5)
    return write_gguf(path, metadata(s), tensors)


def dequantize(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All tensors of a file as float64, rows first, by the `gguf` package."""
    weights = {}
    with GGUFFile(path) as file:
        for name, info in file.tensors.items():
            kind = gguf.GGMLQuantizationType[info.type]
            raw = np.frombuffer(file.read(name), np.uint8).reshape(*info.shape[:-1], -1)
            weights[name] = gguf.quants.dequantize(raw, kind).reshape(info.shape).astype(np.float64)
    return weights


class ModelFiles:
    """Files by shape, each written once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths: dict[Shape, str] = {}

    def __call__(self, **dimensions: Any) -> str:
        """The path of a file of `Shape(**dimensions)`."""
        shape = Shape(**dimensions)
        if shape not in self.paths:
            self.paths[shape] = write_model(self.folder / f"{len(self.paths)}.gguf", shape)
        return self.paths[shape]


def random_ids(n: int, vocab_size: int = 301, seed: int = 0) -> list[int]:
    """n token ids, BOS first."""
    return [1, *np.random.default_rng(seed).integers(3, vocab_size, n - 1).tolist()]


def bits(x: np.ndarray) -> np.ndarray:
    """float32 as integers: equal only if every bit is."""
    return np.ascontiguousarray(x, np.float32).view(np.uint32)


# ---- a model without an engine


def on_team(n_threads: int, work: Callable[[_core.Team], T]) -> T:
    """work(team) inside a team of its own, on a thread of its own: OpenMP on the main thread would
    make every later fork a trap."""
    results: list[T] = []
    errors: list[BaseException] = []
    team = _core.Team(n_threads)

    def main() -> None:
        try:
            results.append(work(team))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=team.enter, args=(main,))
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def make_model(
    path: str, *, rules: Iterable[Rule] = RULES, n_threads: int = 1, every_member: bool = True, **options: Any
) -> tuple[Model, ModelSource]:
    """A Model fused by `rules` alone, and its open file. every_member: none idles if the model is small."""
    chosen = tuple(rules)
    named: dict[str, Any] = {
        "n_ctx": None,
        "compute": "auto",
        "kv_dtype": None,
        "kv_bytes": None,
        "prefill_chunk": 64,
        "max_batch": 8,
        "use_hugepages": False,
    }
    file = open_model(path)
    was = pyllama.model.fuse
    pyllama.model.fuse = lambda nodes: fuse(nodes, chosen)
    try:
        model = Model(file, n_threads=n_threads, **(named | options))
    finally:
        pyllama.model.fuse = was
    if every_member:
        model.plan.weight_bytes = EVERY_MEMBER
    return model, file


Step = Sequence[tuple[int, Sequence[int]]]  # (sequence, its next token ids), ...


@dataclass
class Sequences:
    """Runs steps of a loaded model and keeps the logits of every row, by sequence."""

    model: Model
    blocks: dict[int, list[int]] = field(default_factory=dict)
    length: dict[int, int] = field(default_factory=dict)
    logits: dict[int, list[np.ndarray]] = field(default_factory=dict)

    def run(self, step: Step, wanted: Callable[[int], bool] = lambda row: True) -> None:
        """One forward over the rows of `step`; `wanted` says of which rows logits are made."""
        batch, n = self.model.batch, 0
        for i, (seq, ids) in enumerate(step):
            first = self.length.get(seq, 0)
            blocks = self.blocks.setdefault(seq, [])
            while len(blocks) * _core.KV_BLOCK < first + len(ids):
                blocks.append(self.model.pool.take())
            rows = slice(n, n + len(ids))
            batch.token[rows], batch.pos[rows], batch.seq[rows] = ids, range(first, first + len(ids)), i
            batch.block_table[i, : len(blocks)] = blocks
            self.length[seq] = first + len(ids)
            n += len(ids)
        outputs = [row for row in range(n) if wanted(row)]
        batch.output[: len(outputs)] = outputs
        logits = np.full((len(outputs), self.model.config.vocab_size), np.nan, np.float32)
        assert self.model.program.run(batch, n, len(outputs), False, logits)
        owners = [seq for seq, ids in step for _ in ids]
        for row, values in zip(outputs, logits, strict=True):
            self.logits.setdefault(owners[row], []).append(values)

    def result(self) -> dict[int, np.ndarray]:
        """Logits [n, vocab] of each sequence."""
        return {seq: np.array(rows) for seq, rows in self.logits.items()}


def forward(path: str, steps: Iterable[Step], **options: Any) -> dict[int, np.ndarray]:
    """The logits of all rows of `steps`, by sequence, from a fresh model."""
    model, file = make_model(path, **options)

    def work(team: _core.Team) -> dict[int, np.ndarray]:
        model.load(file, team)
        try:
            sequences = Sequences(model)
            for step in steps:
                sequences.run(step)
            return sequences.result()
        finally:
            model.close()

    with file:
        return on_team(model.limits.n_threads, work)
