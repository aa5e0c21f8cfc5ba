"""Tensors of a file -> Weights of a model: each shape and type checked, none left over."""

from __future__ import annotations

import numpy as np

from .. import _core
from ..errors import ModelLoadError, UnsupportedModelError
from ..program import Weight
from .gguf import GGUFFile


def expect(file: GGUFFile, field: str, expected: object, found: object, ok: bool | None = None) -> None:
    """Raises ModelLoadError naming file and field unless `ok`, or found == expected."""
    if not (found == expected if ok is None else ok):
        raise ModelLoadError(f"{file.path}: {field}: expected {expected}, found {found}")


class Binder:
    """Hands out Weights by tensor name for one kernel table and compute mode."""

    def __init__(self, file: GGUFFile, kernels: _core.Kernels, compute: str) -> None:
        self.file = file
        self.kernels = kernels
        self.compute = compute
        self.bound: set[str] = set()

    def _check(self, name: str, shape: tuple[int, ...]) -> str:
        """The tensor's type; its shape must be `shape`."""
        tensor = self.file.tensor(name)
        expect(self.file, f"shape of {name}", list(shape), list(tensor.shape))
        if tensor.type not in self.kernels.formats:
            able = ", ".join(self.kernels.formats)
            raise UnsupportedModelError(
                f"{self.file.path}: type of {name}: expected one of {able}, found {tensor.type}"
            )
        self.bound.add(name)
        return tensor.type

    def matrix(self, name: str, n_rows: int, n_cols: int, rope_head: int = 0) -> Weight:
        """The matrix `name` [n_rows, n_cols]."""
        source = self._check(name, (n_rows, n_cols))
        fmt = "F32" if self.compute == "f32" else source
        act = self.kernels.act(self.kernels.formats[fmt])
        return Weight(name, n_rows, n_cols, fmt, source, act, rope_head)

    def vector(self, name: str, n: int) -> Weight:
        """The F32 vector `name` [n]."""
        source = self._check(name, (n,))
        if source != "F32":
            raise UnsupportedModelError(f"{self.file.path}: type of {name}: expected F32, found {source}")
        return Weight(name, 0, n)

    def rope_factors(self, name: str, n: int) -> np.ndarray:
        """Divisors of the rotary frequencies, ones where the file has none."""
        if name not in self.file.tensors:
            return np.ones(n)
        self.vector(name, n)
        factors = np.frombuffer(self.file.read(name), "<f4").astype(np.float64)
        expect(
            self.file,
            name,
            "positive numbers",
            "others",
            bool(np.all(factors > 0) and np.all(np.isfinite(factors))),
        )
        return factors

    def finish(self) -> None:
        """Raises UnsupportedModelError if a tensor was left: ignoring it would change the model."""
        left = sorted(set(self.file.tensors) - self.bound)
        if left:
            raise UnsupportedModelError(
                f"{self.file.path}: tensors: expected none but those of the architecture, "
                f"found {left[0]} ({len(left)} such)"
            )
