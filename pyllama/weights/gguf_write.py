"""GGUF v3 files, written (ggml, docs/gguf.md): for models that are made, not read."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterable
from typing import Any

from .gguf import GGML_TYPES

ALIGNMENT = 32
_TYPES = {name: (i, block, n) for i, (name, block, n) in GGML_TYPES.items()}

NewTensor = tuple[str, str, tuple[int, ...], bytes | None]


def tensor_bytes(kind: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor of a type of GGML_TYPES, whole blocks."""
    _, block, n = _TYPES[kind]
    return math.prod(shape) // block * n


def write_gguf(path: str | os.PathLike[str], metadata: dict[str, Any], tensors: Iterable[NewTensor]) -> None:
    """Writes a file of (name, type of GGML_TYPES, shape with rows first, data).

    Data that is None is zeros, which take no disk where files may be sparse. Raises OSError.
    """
    infos, offset, places = [], 0, []
    for name, kind, shape, data in tensors:
        dims = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        infos.append(_string(name) + dims + struct.pack("<IQ", _TYPES[kind][0], offset))
        places.append((offset, data))
        offset += -(-tensor_bytes(kind, shape) // ALIGNMENT) * ALIGNMENT
    pairs = []
    for key, value in metadata.items():
        type_id, payload = _value(value)
        pairs.append(_string(key) + struct.pack("<I", type_id) + payload)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(pairs)) + b"".join(pairs + infos)
    start = -(-len(head) // ALIGNMENT) * ALIGNMENT
    with open(path, "wb") as file:
        file.write(head)
        for at, data in places:
            if data is not None:
                file.seek(start + at)
                file.write(data)
        file.truncate(start + offset)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> tuple[int, bytes]:
    """GGUF's type of a Python value, and its bytes."""
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, int):
        return 4, struct.pack("<I", value)
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    if isinstance(value, str):
        return 8, _string(value)
    items = [_value(item) for item in value]
    return 9, struct.pack("<IQ", items[0][0], len(items)) + b"".join(data for _, data in items)
