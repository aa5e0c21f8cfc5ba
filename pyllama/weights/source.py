"""What a model's weights come in, whatever the kind of file: named facts and named tensors."""

from __future__ import annotations

import errno
import math
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from pyllama.errors import ModelLoadError

from .gguf_header import load_error, pread, show

if TYPE_CHECKING:
    from types import TracebackType

S = TypeVar("S")
T = TypeVar("T")
M = TypeVar("M", bound="ModelSource")

REQUIRED: Final[Any] = object()
"""Default of the getters: a missing key is an error."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies, proven to be inside its file.

    `type` is a name of GGML_TYPES. `shape` is rows first: a matrix of GGUF dims [columns, rows]
    has shape (rows, columns). `offset` counts bytes from the start of the open file `fd`, that of
    `path`; `nbytes` is product of shape / block * bytes per block, rows without padding.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    fd: int = field(default=-1, compare=False)
    path: str = field(default="", compare=False)


class ModelSource:
    """Metadata under GGUF's keys and tensors under GGUF's names; subclasses open and check the files.

    `path`: what errors name. `kind`: what it is, in words. `size`: bytes in all. `metadata`: int,
    float, bool, str, list[str] or a read-only numpy array [n] by key. `tensors`: by name.
    `rope_interleaved`: the rows of a rotated head lie as pairs (2i, 2i + 1), as in the Llamas of
    GGUF; else half split.
    """

    path: str
    kind: str
    size: int
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]
    rope_interleaved: bool = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fsdecode(path)
        self._fds: list[int] = []

    def open(self, path: str) -> tuple[int, int]:
        """Opens a file of the model: (fd, bytes). Raises OSError, ModelLoadError for a special file."""
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(mode):  # to open a FIFO would wait for its writer
            raise load_error(path, "file", "a regular file", f"mode {stat.filemode(mode)}")
        self._fds.append(os.open(path, os.O_RDONLY))
        return self._fds[-1], os.fstat(self._fds[-1]).st_size

    def tensor(self, name: str) -> TensorInfo:
        """The place of tensor `name`; ModelLoadError if the file has none of that name."""
        if name not in self.tensors:
            raise self._bad(f"tensor {show(name)}", "a tensor of this name", "none")
        return self.tensors[name]

    def read(self, name: str) -> bytes:
        """All bytes of a tensor, row after row; ModelLoadError if it is missing or cut short."""
        info = self.tensor(name)
        if not self._fds:
            raise ValueError(f"{self.path} is closed")
        data = pread(info.fd, info.nbytes, info.offset)
        if len(data) != info.nbytes:
            found = f"{len(data)}: the file shrank"
            raise load_error(info.path, f"tensor {show(name)} data", f"{info.nbytes} bytes", found)
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
        """Closes the files; twice is fine. `read` raises ValueError afterwards."""
        while self._fds:
            os.close(self._fds.pop())

    __del__ = close

    def __enter__(self: M) -> M:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()
