"""GGUF v2 and v3: a file -> metadata and named tensors, every bound checked.

The layout is that of the GGUF specification (ggml, docs/gguf.md), all numbers little-endian:

    magic "GGUF" | version u32 | tensor_count u64 | metadata_kv_count u64
    metadata_kv_count x { key string | value type u32 | value }
    tensor_count x { name string | n_dims u32 | dims u64[n_dims] | type u32 | offset u64 }
    zeros up to a multiple of the alignment | tensor data

The file is hostile until proven otherwise: `gguf_header` trusts no length before it is compared
with the bytes that are left, and no tensor is listed before its whole extent is known to lie
inside the file and to be its own. Nothing is mapped: a file that shrinks gives an error.
"""

from __future__ import annotations

import math
import os
from itertools import pairwise
from typing import Final, final

from pyllama.errors import UnsupportedModelError

from .gguf_header import MAX_KV, MIN_KV_BYTES, Header, read_metadata, read_version, show
from .gguf_shards import MAX_SHARDS, check_shard, shard_paths
from .source import ModelSource, TensorInfo

GGML_TYPES: Final[dict[int, tuple[str, int, int]]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
    42: ("Q2_0", 64, 18),
}
"""Tensor type id -> (name, weights per block, bytes per block)."""

_REMOVED_TYPES: Final[dict[int, str]] = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}

MAX_TENSORS: Final = 1 << 17
MIN_TENSOR_BYTES: Final = 8 + 1 + 4 + 8 + 4 + 8  # the shortest name, one dim
MAX_NAME: Final = 256  # bytes; the specification says 64, some converters write more
MAX_DIMS: Final = 4
MIN_ALIGNMENT: Final = 8  # by the specification
MAX_ALIGNMENT: Final = 1 << 20
DEFAULT_ALIGNMENT: Final = 32

# Architectures whose converters reorder the rows of Q and K, for rotation by neighbouring pairs.
INTERLEAVED: Final = frozenset({"llama", "granite", "smollm3"})


def _read_tensor(head: Header, i: int) -> TensorInfo:
    """The i-th tensor info; its offset still counts from the start of the tensor data."""
    name = head.string(f"tensor[{i}] name", 1, MAX_NAME)
    field = f"tensor {show(name)}"
    n_dims = head.u32(f"{field} n_dims")
    if not 1 <= n_dims <= MAX_DIMS:
        raise head.bad(f"{field} n_dims", f"1..{MAX_DIMS}", n_dims)
    dims = [head.u64(f"{field} dims[{k}]") for k in range(n_dims)]
    kind = head.u32(f"{field} type")
    offset = head.u64(f"{field} offset")
    if kind not in GGML_TYPES:
        found = f"{kind} ({_REMOVED_TYPES[kind]})" if kind in _REMOVED_TYPES else kind
        raise head.bad(f"{field} type", "a type of GGML_TYPES", found, UnsupportedModelError)
    type_name, block, block_bytes = GGML_TYPES[kind]
    for k, dim in enumerate(dims):
        if not 1 <= dim < 1 << 63:
            raise head.bad(f"{field} dims[{k}]", "1..2**63-1", dim)
    if dims[0] % block:
        raise head.bad(f"{field} dims[0]", f"a multiple of {type_name}'s block {block}", dims[0])
    nbytes = math.prod(dims) // block * block_bytes
    if math.prod(dims) >= 1 << 63 or nbytes >= 1 << 63:
        raise head.bad(f"{field} dims", "a product below 2**63 weights and bytes", dims)
    return TensorInfo(name, type_name, tuple(reversed(dims)), offset, nbytes)


def _read_tensors(head: Header, n: int, alignment: int) -> dict[str, TensorInfo]:
    """All tensor infos with their offsets in the file, in file order."""
    infos: dict[str, TensorInfo] = {}
    for i in range(n):
        info = _read_tensor(head, i)
        if info.name in infos:
            raise head.bad(f"tensor[{i}] name", "unique names", f"{show(info.name)} again")
        infos[info.name] = info
    start = -(-head.tell() // alignment) * alignment
    tensors = {}
    for t in infos.values():
        field = f"tensor {show(t.name)} offset"
        if t.offset % alignment:
            raise head.bad(field, f"a multiple of the alignment {alignment}", t.offset)
        begin, end = start + t.offset, start + t.offset + t.nbytes
        if end > head.size:
            expected = f"an extent inside the file's {head.size} bytes"
            raise head.bad(field, expected, f"{t.offset}: bytes {begin} to {end}")
        tensors[t.name] = TensorInfo(t.name, t.type, t.shape, begin, t.nbytes, head.fd, head.path)
    _check_overlap(head, list(tensors.values()))
    return tensors


def _check_overlap(head: Header, tensors: list[TensorInfo]) -> None:
    tensors.sort(key=lambda t: t.offset)
    for before, t in pairwise(tensors):
        end = before.offset + before.nbytes
        if t.offset < end:
            expected = f"at least {end} in the file, the end of {show(before.name)}"
            raise head.bad(f"tensor {show(t.name)} offset", expected, t.offset)


@final
class GGUFFile(ModelSource):
    """An open GGUF file: its metadata, the places of its tensors, and their bytes on request.

    The first of several shards (gguf_shards) opens them all and is one file to its users;
    `alone` leaves the others out.

    Attributes: `path`, `size` in bytes, of all shards, `version` 2 or 3, `alignment` in bytes,
    `metadata` (int, float, bool, str, list[str], or a read-only numpy array [n] for arrays of numbers
    and bools), `tensors`; both in file order. It is a context manager, and `read` may be called from
    any thread.

    Raises FileNotFoundError, IsADirectoryError, PermissionError ... as `open` does; ModelLoadError
    for a file that breaks the specification; UnsupportedModelError for a GGUF v1 or big-endian
    file, arrays in arrays, and unknown value or tensor types.
    """

    def __init__(self, path: str | os.PathLike[str], *, alone: bool = False) -> None:
        super().__init__(path)
        try:
            self._read_header(*self.open(self.path))
            n_shards = 1 if alone else self.get_int("split.count", 1, min=0, max=MAX_SHARDS)
            if n_shards > 1:
                self._open_shards(n_shards)
        except BaseException:
            self.close()
            raise

    def _read_header(self, fd: int, size: int) -> None:
        self.size = size
        head = Header(self.path, fd, size)
        self.version: int = read_version(head)
        self.kind = f"GGUF v{self.version}"
        n_tensors = head.count("tensor_count", MAX_TENSORS, MIN_TENSOR_BYTES)
        n_kv = head.count("metadata_kv_count", MAX_KV, MIN_KV_BYTES)
        self.metadata = read_metadata(head, n_kv)
        self.alignment: int = self.get_int(
            "general.alignment", DEFAULT_ALIGNMENT, min=MIN_ALIGNMENT, max=MAX_ALIGNMENT
        )
        if self.alignment & (self.alignment - 1):
            raise self._bad("general.alignment", "a power of two", self.alignment)
        self.tensors = _read_tensors(head, n_tensors, self.alignment)
        self.rope_interleaved = self.metadata.get("general.architecture") in INTERLEAVED

    def _open_shards(self, n_shards: int) -> None:
        """Adds the tensors of the other shards, and takes over their open files."""
        paths = shard_paths(self.path, self.get_int("split.no"), n_shards)
        n_tensors = self.get_int("split.tensors.count", min=0, max=MAX_TENSORS)
        for no, path in enumerate(paths[1:], 1):
            try:
                shard = GGUFFile(path, alone=True)
            except FileNotFoundError:
                raise self._bad("split.count", f"{n_shards} files", f"no {show(path)}") from None
            self._fds, shard._fds = self._fds + shard._fds, []
            check_shard(self, shard, no)
            self.size += shard.size
            self.tensors |= shard.tensors
        if len(self.tensors) != n_tensors:
            raise self._bad("split.tensors.count", f"{len(self.tensors)}, as in all shards", n_tensors)
