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

import errno
import math
import os
import stat
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, final

from pyllama.errors import ModelLoadError, UnsupportedModelError

from .gguf_header import (
    MAX_KV,
    MIN_KV_BYTES,
    Header,
    load_error,
    pread,
    read_metadata,
    read_version,
    show,
)

if TYPE_CHECKING:
    from types import TracebackType

S = TypeVar("S")
T = TypeVar("T")

REQUIRED: Final[Any] = object()
"""Default of the getters: a missing key is an error."""

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


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies in the file, proven to be inside it.

    `type` is a name of GGML_TYPES. `shape` is rows first: a matrix of GGUF dims [columns, rows]
    has shape (rows, columns). `offset` counts bytes from the start of the file; `nbytes` is
    product of shape / block * bytes per block, rows without padding.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


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
        tensors[t.name] = TensorInfo(t.name, t.type, t.shape, begin, t.nbytes)
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
class GGUFFile:
    """An open GGUF file: its metadata, the places of its tensors, and their bytes on request.

    Attributes: `path`, `fd` (O_RDONLY, -1 once closed), `size` in bytes, `version` 2 or 3,
    `alignment` in bytes, `metadata` (int, float, bool, str, list[str], or a read-only numpy array
    [n] for arrays of numbers and bools), `tensors`; both in file order. It is a context manager,
    and `read` may be called from any thread.

    Raises FileNotFoundError, IsADirectoryError, PermissionError ... as `open` does; ModelLoadError
    for a file that breaks the specification; UnsupportedModelError for a GGUF v1 or big-endian
    file, one shard of several, arrays in arrays, and unknown value or tensor types.
    """

    fd: int = -1

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: str = os.fsdecode(path)
        mode = os.stat(self.path).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self.path)
        if not stat.S_ISREG(mode):  # to open a FIFO would wait for its writer
            raise self._bad("file", "a regular file", f"mode {stat.filemode(mode)}")
        self.fd = os.open(self.path, os.O_RDONLY)
        try:
            self.size: int = os.fstat(self.fd).st_size
            self._read_header()
        except BaseException:
            self.close()
            raise

    def _read_header(self) -> None:
        head = Header(self.path, self.fd, self.size)
        self.version: int = read_version(head)
        n_tensors = head.count("tensor_count", MAX_TENSORS, MIN_TENSOR_BYTES)
        n_kv = head.count("metadata_kv_count", MAX_KV, MIN_KV_BYTES)
        self.metadata: dict[str, Any] = read_metadata(head, n_kv)
        shards = self.get_int("split.count", 1)
        if shards > 1:
            expected = "1: models in several files are not supported"
            raise self._bad("split.count", expected, shards, UnsupportedModelError)
        self.alignment: int = self.get_int(
            "general.alignment", DEFAULT_ALIGNMENT, min=MIN_ALIGNMENT, max=MAX_ALIGNMENT
        )
        if self.alignment & (self.alignment - 1):
            raise self._bad("general.alignment", "a power of two", self.alignment)
        self.tensors: dict[str, TensorInfo] = _read_tensors(head, n_tensors, self.alignment)

    def tensor(self, name: str) -> TensorInfo:
        """The place of tensor `name`; ModelLoadError if the file has none of that name."""
        if name not in self.tensors:
            raise self._bad(f"tensor {show(name)}", "a tensor of this name", "none")
        return self.tensors[name]

    def read(self, name: str) -> bytes:
        """All bytes of a tensor, row after row; ModelLoadError if it is missing or cut short."""
        info = self.tensor(name)
        if self.fd < 0:
            raise ValueError(f"{self.path} is closed")
        data = pread(self.fd, info.nbytes, info.offset)
        if len(data) != info.nbytes:
            found = f"{len(data)}: the file shrank"
            raise self._bad(f"tensor {show(name)} data", f"{info.nbytes} bytes", found)
        return data

    def get_int(
        self,
        key: str,
        default: int | T = REQUIRED,
        *,
        min: int | None = None,
        max: int | None = None,
    ) -> int | T:
        """An integer of any width, min <= value <= max; the default is not checked."""
        return self._scalar(key, default, int, "an integer", min, max)

    def get_float(
        self,
        key: str,
        default: float | T = REQUIRED,
        *,
        min: float | None = None,
        max: float | None = None,
    ) -> float | T:
        """A finite float32 or float64, min <= value <= max; the default is not checked."""
        return self._scalar(key, default, float, "a finite float", min, max)

    def get_str(self, key: str, default: str | T = REQUIRED) -> str | T:
        """A string; the default is not checked."""
        return self._scalar(key, default, str, "a string")

    def get_bool(self, key: str, default: bool | T = REQUIRED) -> bool | T:
        """A bool; the default is not checked."""
        return self._scalar(key, default, bool, "a bool")

    def get_array(
        self,
        key: str,
        kind: Literal["str", "int", "float", "bool"],
        default: Any = REQUIRED,
        *,
        length: int | None = None,
    ) -> Any:
        """list[str] for "str", else a read-only numpy array [n]; floats are finite.

        `length` is the n that it must have; the default is not checked.
        """
        dtypes = {"str": "", "int": "iu", "float": "f", "bool": "b"}[kind]
        what = f"an array of {kind}" if length is None else f"an array of {length} {kind}"
        value = self._lookup(key, default, what)
        if key not in self.metadata:
            return value
        dtype = value.dtype.kind if hasattr(value, "dtype") else ""
        fits = isinstance(value, list) if kind == "str" else dtype and dtype in dtypes
        if not fits or length not in (None, len(value)):
            raise self._bad(key, what, show(value))
        if kind == "float":
            import numpy as np  # late, as in gguf_header

            wrong = np.flatnonzero(~np.isfinite(value))
            if len(wrong):
                raise self._bad(f"{key}[{wrong[0]}]", "a finite float", value[wrong[0]])
        return value

    def _lookup(self, key: str, default: Any, what: str) -> Any:
        if key in self.metadata:
            return self.metadata[key]
        if default is REQUIRED:
            raise self._bad(key, what, "no such key")
        return default

    def _scalar(
        self, key: str, default: T, kind: type[S], what: str, least: Any = None, most: Any = None
    ) -> S | T:
        bounds = [f"{op} {x}" for op, x in ((">=", least), ("<=", most)) if x is not None]
        what = f"{what} {' and '.join(bounds)}".rstrip()
        value = self._lookup(key, default, what)
        if key not in self.metadata:
            return default
        finite = not isinstance(value, float) or math.isfinite(value)
        fits = (
            type(value) is kind  # to isinstance, a bool is an int
            and finite
            and (least is None or least <= value)
            and (most is None or value <= most)
        )
        if not fits:
            raise self._bad(key, what, show(value))
        found: S = value
        return found

    def _bad(
        self, field: str, expected: Any, found: Any, cls: type[ModelLoadError] = ModelLoadError
    ) -> ModelLoadError:
        return load_error(self.path, field, expected, found, cls)

    def close(self) -> None:
        """Close the file; twice is fine. `read` raises ValueError afterwards."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()
