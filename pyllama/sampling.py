"""What is drawn: the parameters of a request."""

from __future__ import annotations

import math
import numbers
import os
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from .errors import ModelLoadError
from .weights.json_file import read_json

# Other engines' names for the same parameters; the names themselves are vLLM's.
ALIASES = {
    "max_new_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "n_predict": "max_tokens",
    "num_predict": "max_tokens",
    "min_new_tokens": "min_tokens",
    "num_return_sequences": "n",
    "temp": "temperature",
    "typ_p": "typical_p",
    "repeat_penalty": "repetition_penalty",
    "penalty_last_n": "repeat_last_n",
    "suppress_tokens": "banned_token_ids",
    "stop_strings": "stop",
}
MAX_IDS = 1 << 31  # token ids are int32


# What a model may recommend.
RECOMMENDED = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty")
GGUF_KEYS = {name: f"general.sampling.{name}" for name in ("top_k", "top_p", "min_p")} | {
    "temperature": "general.sampling.temp",
    "repetition_penalty": "general.sampling.penalty_repeat",
}


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How a request draws its tokens, and when it ends.

    A token is drawn in these steps:
    1. logprobs are taken: log_softmax of the logits as the model made them.
    2. allowed_token_ids: only these may be drawn. banned_token_ids: these may not. min_tokens: tokens
       that end the text may not before so many are drawn.
    3. logit_bias {token id: -100 to 100} is added.
    4. Penalties, for the tokens among the last repeat_last_n of prompt and output (-1: all; 0: none):
       repetition_penalty divides a positive logit and multiplies another one (Keskar et al. 2019);
       frequency_penalty is subtracted as often as the token is in the output, presence_penalty once if
       it is there (OpenAI).
    5. temperature: 0 takes the largest logit; else softmax(logits / temperature) is cut:
    6. top_k (0: all), typical_p (locally typical sampling, Meister et al. 2022; 1: all), top_p (1: all),
       min_p (relative to the best that is left), in this order, each on what the one before left.

    seed: same seed and prompt, same text, whatever else runs; None draws one.
    n: continuations of the prompt; number i is drawn with seed + i (modulo 2^64).
    logprobs, prompt_logprobs: so many of the best tokens of each position, and the one that is there
    (0: that one alone; None: none).
    stop: the text ends before the first of these, or after it with include_stop_str_in_output; they are
    not looked for in the first min_tokens tokens. stop_token_ids: these tokens end the text too, and their
    text is a part of it only with include_stop_str_in_output.
    max_tokens: None runs to the end of the context.
    ignore_eos: the model's end tokens are tokens like others.

    Raises ValueError or TypeError for a value out of range or of the wrong type.
    """

    n: int = 1
    max_tokens: int | None = None
    min_tokens: int = 0
    temperature: float = 1.0
    top_k: int = 0
    typical_p: float = 1.0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repeat_last_n: int = -1
    logit_bias: Mapping[int, float] | None = None
    allowed_token_ids: Collection[int] | None = None
    banned_token_ids: Collection[int] | None = None
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    stop_token_ids: Collection[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None

    def __post_init__(self) -> None:
        for name, least, most in INTEGERS:
            if getattr(self, name) is not None or name not in OPTIONAL:
                _check_int(name, getattr(self, name), least, most)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens: expected at most {self.max_tokens}, max_tokens, found {self.min_tokens}"
            )
        for name, low, high in NUMBERS:
            _check_float(name, getattr(self, name), low, high, above=name in ("top_p", "typical_p"))
        for name in ("include_stop_str_in_output", "ignore_eos"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name}: expected a bool, found {getattr(self, name)!r}")
        self._check_stop()
        for name in ("allowed_token_ids", "banned_token_ids", "stop_token_ids"):
            object.__setattr__(self, name, _ids(name, getattr(self, name)))
        if self.allowed_token_ids == ():
            raise ValueError("allowed_token_ids: expected at least one token id, found none")
        object.__setattr__(self, "logit_bias", _biases(self.logit_bias))

    def _check_stop(self) -> None:
        if self.stop is not None and not isinstance(self.stop, (str, list, tuple)):
            raise TypeError(f"stop: expected a string or a list of them, found {self.stop!r}")
        if any(not isinstance(s, str) for s in self.stop_strings()):
            raise TypeError(f"stop: expected strings, found {self.stop!r}")
        if any(not s for s in self.stop_strings()):
            raise ValueError(f"stop: expected non-empty strings, found {self.stop!r}")
        if any(0xD800 <= ord(c) < 0xE000 for s in self.stop_strings() for c in s):
            raise ValueError(f"stop: expected text, found half of a surrogate pair: {self.stop!r}")

    def stop_strings(self) -> tuple[str, ...]:
        """`stop` as a tuple."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def has_penalties(self) -> bool:
        """Whether the tokens so far matter to the next one."""
        strengths = (self.repetition_penalty, self.frequency_penalty, self.presence_penalty)
        return self.repeat_last_n != 0 and strengths != (1, 0, 0)

    def draw_seed(self, index: int = 0) -> int:
        """The seed of continuation `index`, or a fresh one."""
        return secrets.randbits(64) if self.seed is None else (self.seed + index) % 2**64


OPTIONAL = ("max_tokens", "seed", "logprobs", "prompt_logprobs")
INTEGERS = (
    ("n", 1, 1 << 14),
    ("max_tokens", 1, 2**31 - 1),
    ("min_tokens", 0, 2**31 - 1),
    ("top_k", 0, 2**31 - 1),
    ("repeat_last_n", -1, 2**31 - 1),
    ("seed", 0, 2**64 - 1),
    ("logprobs", 0, 2**31 - 1),
    ("prompt_logprobs", 0, 2**31 - 1),
)
NUMBERS = (
    ("temperature", 0.0, 1e30),  # a float32 in C
    ("top_p", 0.0, 1.0),
    ("typical_p", 0.0, 1.0),
    ("min_p", 0.0, 1.0),
    ("repetition_penalty", 1e-3, 1e3),
    ("frequency_penalty", -2.0, 2.0),
    ("presence_penalty", -2.0, 2.0),
)


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


def _ids(name: str, value: object) -> tuple[int, ...] | None:
    """Token ids as a tuple of ints; the vocabulary is not known here."""
    if value is None:
        return None
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Collection):
        raise TypeError(f"{name}: expected a list of token ids, found {value!r:.80}")
    for i in value:
        _check_int(name, i, 0, MAX_IDS - 1)
    return tuple(int(i) for i in value)


def _biases(value: object) -> dict[int, float] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"logit_bias: expected a dict of token ids and numbers, found {value!r:.80}")
    for token, bias in value.items():
        _check_int("logit_bias", token, 0, MAX_IDS - 1)
        _check_float(f"logit_bias[{token}]", bias, -100.0, 100.0)
    return {int(token): float(bias) for token, bias in value.items()}


def params_from(
    params: SamplingParams | None, options: dict[str, object], defaults: SamplingParams | None = None
) -> SamplingParams:
    """`params`, or `defaults` with what the keyword options say, under their own names or other engines'.

    Raises TypeError for an unknown name, for two spellings of one, or for both forms at once."""
    if params is not None:
        if not isinstance(params, SamplingParams):
            raise TypeError(f"params: expected SamplingParams, found {type(params).__name__}")
        if options:
            raise TypeError(f"give SamplingParams or keywords, not both: found {', '.join(options)} too")
        return params
    known = {f.name for f in fields(SamplingParams)}
    named: dict[str, object] = {}
    spelled: dict[str, str] = {}
    for name, value in options.items():
        real = ALIASES.get(name, name)
        if real not in known:
            raise TypeError(f"unknown sampling parameter {name!r}; known: {', '.join(sorted(known))}")
        if real in named:
            raise TypeError(f"{real} was given twice, as {spelled[real]} and as {name}")
        named[real], spelled[real] = value, name
    return replace(defaults or SamplingParams(), **named)  # type: ignore[arg-type]


def read_defaults(path: str, metadata: Mapping[str, Any]) -> SamplingParams:
    """What the model at `path` recommends: generation_config.json of a Hugging Face folder, the keys
    general.sampling.* of a GGUF file's metadata; without them, plain sampling.

    `do_sample` is not read, as in vLLM: it says what transformers does, not what suits the model.
    Raises ModelLoadError naming file and field.
    """
    found: Mapping[str, Any] = {name: metadata.get(key) for name, key in GGUF_KEYS.items()}
    if os.path.isdir(path):
        path = os.path.join(path, "generation_config.json")
        found = read_json(path).values if os.path.exists(path) else {}
    given = {name: found[name] for name in RECOMMENDED if found.get(name) is not None}
    try:
        return SamplingParams(**given)
    except (TypeError, ValueError) as error:
        raise ModelLoadError(f"{path}: {error}") from None
