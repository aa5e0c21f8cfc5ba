"""What is drawn: the parameters of a request."""

from __future__ import annotations

import math
import numbers
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, fields

# Other engines' names for the same parameters.
ALIASES = {
    "max_new_tokens": "max_tokens",
    "n_predict": "max_tokens",
    "num_predict": "max_tokens",
    "temp": "temperature",
    "stop_strings": "stop",
}


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How a request draws its tokens, and when it ends.

    temperature: 0 takes the most probable token. top_k: 0 keeps all. top_p, min_p: as usual;
    the cuts apply to softmax(logits / temperature), in the order top_k, top_p, min_p.
    seed: same seed and prompt, same text, whatever else runs; None draws one.
    stop: the text ends before the first of these. max_tokens: None runs to the end of the context.
    ignore_eos: end-of-text tokens are tokens like others.

    Raises ValueError or TypeError for a value out of range or of the wrong type.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        if self.max_tokens is not None:
            _check_int("max_tokens", self.max_tokens, 1, 2**31 - 1)
        _check_float("temperature", self.temperature, 0.0, 1e30)  # a float32 in C
        _check_int("top_k", self.top_k, 0, 2**31 - 1)
        _check_float("top_p", self.top_p, 0.0, 1.0, above=True)
        _check_float("min_p", self.min_p, 0.0, 1.0)
        if self.seed is not None:
            _check_int("seed", self.seed, 0, 2**64 - 1)
        if self.stop is not None and not isinstance(self.stop, (str, list, tuple)):
            raise TypeError(f"stop: expected a string or a list of them, found {self.stop!r}")
        if any(not isinstance(s, str) for s in self.stop_strings()):
            raise TypeError(f"stop: expected strings, found {self.stop!r}")
        if any(not s for s in self.stop_strings()):
            raise ValueError(f"stop: expected non-empty strings, found {self.stop!r}")
        if not isinstance(self.ignore_eos, bool):
            raise TypeError(f"ignore_eos: expected a bool, found {self.ignore_eos!r}")

    def stop_strings(self) -> tuple[str, ...]:
        """`stop` as a tuple."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def draw_seed(self) -> int:
        """The seed, or a fresh one."""
        return secrets.randbits(64) if self.seed is None else self.seed


def _check_int(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"{name}: expected an int, found {value!r}")
    if not low <= int(value) <= high:
        raise ValueError(f"{name}: expected {low} to {high}, found {value}")


def _check_float(name: str, value: object, low: float, high: float, above: bool = False) -> None:
    """low <= value <= high, or low < value with `above`."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number, found {value!r}")
    if not (low <= float(value) <= high and math.isfinite(value)) or (above and value == low):
        found = f"{'above' if above else 'from'} {low:g} to {high:g}, found {value!r}"
        raise ValueError(f"{name}: expected a number {found}")


def params_from(params: SamplingParams | None, options: dict[str, object]) -> SamplingParams:
    """`params`, or what the keyword options say, under their own names or other engines'.

    Raises TypeError for an unknown name, for two spellings of one, or for both forms at once."""
    if params is not None:
        if not isinstance(params, SamplingParams):
            raise TypeError(f"params: expected SamplingParams, found {type(params).__name__}")
        if options:
            raise TypeError(f"give SamplingParams or keywords, not both: found {', '.join(options)} too")
        return params
    known = {f.name for f in fields(SamplingParams)}
    named: dict[str, object] = {}
    for name, value in options.items():
        real = ALIASES.get(name, name)
        if real not in known:
            raise TypeError(f"unknown sampling parameter {name!r}; known: {', '.join(sorted(known))}")
        if real in named:
            raise TypeError(f"{real} was given twice, once as {name}")
        named[real] = value
    return SamplingParams(**named)  # type: ignore[arg-type]
