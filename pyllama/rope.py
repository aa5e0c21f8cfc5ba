"""Rotary frequencies of a model file: the base, and the ways in which a context was stretched."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .errors import UnsupportedModelError
from .program import Rope
from .weights.gguf_header import load_error, show
from .weights.source import ModelSource

Array = np.ndarray


def read_rope(source: ModelSource, arch: str, dim: int, base: float, n_ctx: int) -> Rope:
    """The Rope of `dim` rotated values per head, for contexts of n_ctx tokens.

    The frequencies base^(-2i/dim), changed as `rope.scaling.type` says: "linear" (Chen et al. 2023),
    "llama3" (Llama 3.1), "yarn" (Peng et al. 2023) or "longrope" (Ding et al. 2024), and divided by
    the tensor rope_freqs where there is one. n_ctx decides between longrope's two sets of factors,
    once for all positions. Raises ModelLoadError; UnsupportedModelError for another type.
    """
    fields = Scaling(source, f"{arch}.rope.scaling", dim, base)
    plain = base ** (-np.arange(0, dim, 2) / dim)
    long_tensor = "rope_factors_long.weight" in source.tensors
    kind = source.get_str(f"{arch}.rope.scaling.type", "longrope" if long_tensor else "none")
    if kind == "none":
        factor = source.get_float(f"{arch}.rope.scale_linear", 1.0, min=1e-3, max=1e6)
        rope = Rope(plain / factor)
    elif kind == "linear":
        rope = Rope(plain / fields.number("factor"))
    elif kind == "llama3":
        rope = Rope(llama3(plain, fields))
    elif kind == "yarn":
        rope = Rope(yarn(plain, fields), fields.yarn_factor())
    elif kind == "longrope":
        rope = longrope(plain, fields, n_ctx)
    else:
        raise load_error(
            source.path,
            f"{arch}.rope.scaling.type",
            "none, linear, llama3, yarn or longrope",
            show(kind),
            UnsupportedModelError,
        )
    if "rope_freqs.weight" in source.tensors:
        rope = Rope(rope.inv_freq / fields.tensor("rope_freqs.weight"), rope.factor)
    return rope


class Scaling:
    """The parameters under `<arch>.rope.scaling`."""

    def __init__(self, source: ModelSource, prefix: str, dim: int, base: float) -> None:
        self.source, self.prefix, self.dim, self.base = source, prefix, dim, base

    def number(self, name: str, default: Any = None, low: float = 1e-6, high: float = 1e9) -> Any:
        """A positive number; required without a default."""
        rest = () if default is None else (default,)
        return self.source.get_float(f"{self.prefix}.{name}", *rest, min=low, max=high)

    def original(self) -> int:
        """Tokens of the context that the model was trained with before it was stretched."""
        return self.source.get_int(f"{self.prefix}.original_context_length", min=1, max=1 << 22)

    def tensor(self, name: str) -> Array:
        """Divisors of the frequencies [dim / 2] from a tensor."""
        info = self.source.tensor(name)
        n = self.dim // 2
        if info.shape != (n,) or info.type != "F32":
            found = f"{info.type} {list(info.shape)}"
            raise load_error(self.source.path, f"tensor {name}", f"F32 [{n}]", found)
        return self.divisors(f"tensor {name}", np.frombuffer(self.source.read(name), "<f4"))

    def factors(self, name: str) -> Array:
        """longrope's divisors: a tensor in GGUF, an array in a config.json."""
        if f"rope_factors_{name}.weight" in self.source.tensors:
            return self.tensor(f"rope_factors_{name}.weight")
        key = f"{self.prefix}.{name}_factor"
        return self.divisors(key, self.source.get_array(key, "float", length=self.dim // 2))

    def divisors(self, field: str, values: Array) -> Array:
        """Checked: they divide."""
        if not bool(np.all(values > 0) and np.all(np.isfinite(values))):
            raise load_error(self.source.path, field, "positive numbers", "others")
        return values.astype(np.float64)

    def yarn_factor(self) -> float:
        """What sharpens the attention: 0.1 ln(s) + 1, unless the file says."""
        plain = max(1.0, 0.1 * math.log(self.number("factor")) + 1.0)
        return self.number("attention_factor", plain) * self.number("attn_factor", 1.0)


def llama3(plain: Array, s: Scaling) -> Array:
    """Long waves stretched by `factor`, short ones kept, a ramp between."""
    turns = s.original() * plain / (2 * np.pi)
    low, high = s.number("low_freq_factor"), s.number("high_freq_factor")
    if not low < high:
        raise load_error(s.source.path, f"{s.prefix}.low_freq_factor", f"less than {high}", low)
    keep = np.clip((turns - low) / (high - low), 0, 1)
    return plain * (keep + (1 - keep) / s.number("factor"))


def yarn(plain: Array, s: Scaling) -> Array:
    """Waves that turn often in the original context are kept, others stretched, a ramp between."""

    def dim_of(turns: float) -> float:
        return s.dim * math.log(s.original() / (turns * 2 * math.pi)) / (2 * math.log(s.base))

    low, high = dim_of(s.number("yarn_beta_fast", 32.0)), dim_of(s.number("yarn_beta_slow", 1.0))
    if s.source.get_bool(f"{s.prefix}.truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, s.dim - 1)
    stretch = np.clip((np.arange(s.dim // 2) - low) / max(high - low, 0.001), 0, 1)
    return plain * ((1 - stretch) + stretch / s.number("factor"))


def longrope(plain: Array, s: Scaling, n_ctx: int) -> Rope:
    """A divisor for each frequency: one set for contexts up to the original, one for longer."""
    factor = s.number("attention_factor", s.number("attn_factor", 1.0))
    return Rope(plain / s.factors("long" if n_ctx > s.original() else "short"), factor)
