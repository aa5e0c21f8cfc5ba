"""A minimal GGUF writer for tests. It checks nothing, so that it can write broken files."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

VALUE_TYPES = {
    "u8": (0, "<B"),
    "i8": (1, "<b"),
    "u16": (2, "<H"),
    "i16": (3, "<h"),
    "u32": (4, "<I"),
    "i32": (5, "<i"),
    "f32": (6, "<f"),
    "bool": (7, "<?"),
    "str": (8, ""),
    "u64": (10, "<Q"),
    "i64": (11, "<q"),
    "f64": (12, "<d"),
}
F32_ID, Q8_0_ID, Q4_K_ID = 0, 8, 12  # tensor types


class Raw(bytes):
    """Bytes written as they are, where a value, a string or dims would be encoded."""


def u32(n: int) -> Raw:
    return Raw(struct.pack("<I", n))


def u64(n: int) -> Raw:
    return Raw(struct.pack("<Q", n))


def string(text: str | bytes) -> Raw:
    """A GGUF string; Raw passes."""
    if isinstance(text, Raw):
        return text
    raw = text.encode() if isinstance(text, str) else text
    return Raw(u64(len(raw)) + raw)


def _value(kind: str, value: Any) -> bytes:
    if isinstance(value, Raw):
        return value
    return string(value) if kind == "str" else struct.pack(VALUE_TYPES[kind][1], value)


def metadata_bytes(key: str | bytes, kind: str | int, value: Any) -> bytes:
    """One metadata pair.

    `kind` is a name of VALUE_TYPES, "[name]" for an array of it, or a type id (with a Raw value).
    """
    if isinstance(kind, int):
        return string(key) + u32(kind) + _value("", value)
    if not kind.startswith("["):
        return string(key) + u32(VALUE_TYPES[kind][0]) + _value(kind, value)
    element = kind[1:-1]
    if isinstance(value, Raw):  # everything after the array's own type id
        return string(key) + u32(9) + value
    head = u32(9) + u32(VALUE_TYPES[element][0]) + u64(len(value))
    return string(key) + head + b"".join(_value(element, v) for v in value)


def gguf_bytes(
    metadata: Sequence[tuple[str | bytes, str | int, Any]] = (),
    tensors: Sequence[tuple[Any, ...]] = (),
    version: int = 3,
    alignment: int = 32,
    *,
    magic: bytes = b"GGUF",
    n_kv: int | None = None,
    n_tensors: int | None = None,
) -> bytes:
    """The bytes of a GGUF file; see write_gguf."""
    pairs = list(metadata)
    if alignment != 32 and all(key != "general.alignment" for key, _, _ in pairs):
        pairs.append(("general.alignment", "u32", alignment))
    head = [magic, u32(version)]
    head.append(u64(len(tensors) if n_tensors is None else n_tensors))
    head.append(u64(len(pairs) if n_kv is None else n_kv))
    head += [metadata_bytes(*pair) for pair in pairs]
    data = b""
    for name, dims, type_id, payload, *override in tensors:
        offset = len(data) if not override or override[0] is None else override[0]
        shape = dims if isinstance(dims, Raw) else u32(len(dims)) + b"".join(map(u64, dims))
        head.append(string(name) + shape + u32(type_id) + u64(offset))
        data += payload + bytes(-len(payload) % alignment)
    header = b"".join(head)
    return header + (bytes(-len(header) % alignment) + data if tensors else b"")


def write_gguf(
    path: str | os.PathLike[str],
    metadata: Sequence[tuple[str | bytes, str | int, Any]] = (),
    tensors: Sequence[tuple[Any, ...]] = (),
    version: int = 3,
    alignment: int = 32,
    **broken: Any,
) -> str:
    """Write a GGUF file and return its path.

    metadata: (key, kind, value), kind as in metadata_bytes. tensors: (name, dims, type id, data,
    [offset override]), dims in GGUF order, i.e. columns first. `broken` overrides magic, n_kv and
    n_tensors; Raw stands for any string, value or dims.
    """
    Path(path).write_bytes(gguf_bytes(metadata, tensors, version, alignment, **broken))
    return os.fspath(path)


def tiny_file() -> bytes:
    """A valid file with every value type, odd lengths and several tensor types: 2 KB."""
    scalars: list[tuple[str, str, Any]] = [
        ("general.architecture", "str", "llama"),
        ("llama.block_count", "u32", 2),
        ("llama.attention.layer_norm_rms_epsilon", "f32", 1e-5),
        ("test.u8", "u8", 200),
        ("test.i8", "i8", -100),
        ("test.u16", "u16", 60000),
        ("test.i16", "i16", -30000),
        ("test.i32", "i32", -(2**31)),
        ("test.u64", "u64", 2**64 - 1),
        ("test.i64", "i64", -(2**63)),
        ("test.f64", "f64", 0.1),
        ("test.bool", "bool", True),
        ("test.text", "str", "grüße, 世界 \U0001f600"),
    ]
    arrays: list[tuple[str, str, Any]] = [
        ("tokenizer.ggml.tokens", "[str]", ["<s>", "", "a", "▁b", "c" * 300]),
        ("tokenizer.ggml.scores", "[f32]", [0.0, -1.0, -2.5, -3.0, -4.0]),
        ("tokenizer.ggml.token_type", "[i32]", [3, 1, 1, 1, 1]),
        ("test.flags", "[bool]", [True, False, True]),
        ("test.empty", "[u64]", []),
    ]
    tensors = [
        ("token_embd.weight", [8, 5], F32_ID, bytes(range(160))),
        ("blk.0.attn_q.weight", [32, 3], Q8_0_ID, bytes(range(102))),
        ("blk.0.ffn_up.weight", [256, 2], Q4_K_ID, bytes(288)),
        ("output_norm.weight", [8], F32_ID, bytes(32)),
    ]
    return gguf_bytes(scalars + arrays, tensors)
