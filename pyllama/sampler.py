"""What C is told of a request's sampling, and what it gives back."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from . import _core
from .cpu import available_memory
from .errors import InsufficientMemoryError
from .sampling import SamplingParams

RAW = f"V{_core.SAMPLING.itemsize}"
LOGPROB_BYTES = 256  # of one entry in a result: a Logprob, its text, its place in a dict
LogprobRow = list[tuple[float, int, int]]  # (logprob, token, rank): the row's token, then the best


class Sampler:
    """The SAMPLING record of one request, less its counter, and the arrays that it points to.

    ids: the prompt. index: which of its continuations. n_max: tokens of prompt and output at most.
    stop_ids: tokens that end the output, which min_tokens keeps from being drawn.
    Raises ValueError naming the parameter for a token outside of the vocabulary, more logprobs than
    it has tokens, or if no token could be drawn; InsufficientMemoryError for the prompt's logprobs.
    """

    def __init__(
        self,
        params: SamplingParams,
        ids: list[int],
        *,
        index: int,
        n_max: int,
        stop_ids: frozenset[int],
        vocab_size: int,
    ) -> None:
        _check(params, vocab_size)
        record = np.zeros(1, _core.SAMPLING)
        record["seed"], record["n_prompt"], record["target"] = params.draw_seed(index), len(ids), -1
        for name in ("temperature", "top_p", "min_p", "typical_p", "top_k", "min_tokens"):
            record[name] = getattr(params, name)
        self._masks = _masks(params, stop_ids, vocab_size)
        record["allowed"] = [0 if m is None else _address(m) for m in self._masks]
        if params.logit_bias:
            self._bias_token = np.array(list(params.logit_bias), np.int32)
            self._bias = np.array(list(params.logit_bias.values()), np.float32)
            record["n_bias"] = len(self._bias)
            record["bias_token"], record["bias"] = _address(self._bias_token), _address(self._bias)
        self._tokens: np.ndarray | None = None
        if params.has_penalties():
            self._tokens = np.empty(n_max, np.int32)
            self._tokens[: len(ids)] = ids
            self._n_tokens = len(ids)
            record["tokens"], record["last_n"] = _address(self._tokens), params.repeat_last_n
            for name in ("repetition", "frequency", "presence"):
                record[name] = getattr(params, f"{name}_penalty")
        self._logprobs: np.ndarray | None = None
        self._rows: list[np.ndarray] = []
        if params.logprobs is not None:
            self._logprobs = np.empty(1 + params.logprobs, _core.LOGPROB)
            record["n_logprobs"], record["logprobs"] = params.logprobs, _address(self._logprobs)
        self.remembers = self._tokens is not None or self._logprobs is not None
        self.record = record.view(RAW)[0]
        self.n_scored = 0
        if params.prompt_logprobs is not None and index == 0:
            self._score(ids, params.prompt_logprobs)

    def _score(self, ids: list[int], k: int) -> None:
        """`scored` [n_scored]: the records of the prompt's rows but the last, which draws."""
        self.n_scored = n = len(ids) - 1
        need, left = n * (1 + k) * LOGPROB_BYTES, available_memory()
        if left is not None and need > left:
            raise InsufficientMemoryError(f"prompt_logprobs: needs about {need} bytes, {left} are available")
        self._prompt = np.empty((n, 1 + k), _core.LOGPROB)
        records = np.zeros(n, _core.SAMPLING)
        records["target"], records["n_logprobs"] = ids[1:], k
        records["logprobs"] = _address(self._prompt) + self._prompt.strides[0] * np.arange(n)
        self.scored = records.view(RAW)

    def put(self, token: int) -> None:
        """Takes note of a drawn token; called if the sampler `remembers`."""
        if self._tokens is not None:
            self._tokens[self._n_tokens] = token
            self._n_tokens += 1
        if self._logprobs is not None:
            self._rows.append(self._logprobs.copy())

    def logprobs(self) -> list[LogprobRow] | None:
        """Of each token drawn; None if they were not asked for."""
        return None if self._logprobs is None else [row.tolist() for row in self._rows]

    def prompt_logprobs(self, n: int) -> list[LogprobRow]:
        """Of n tokens of the prompt, from its second on."""
        return self._prompt[:n].tolist()


def _check(params: SamplingParams, vocab_size: int) -> None:
    for name in ("stop_token_ids", "allowed_token_ids", "banned_token_ids", "logit_bias"):
        bad = [i for i in getattr(params, name) or () if i >= vocab_size]
        if bad:
            raise ValueError(f"{name}: expected token ids from 0 to {vocab_size - 1}, found {bad[0]}")
    for name in ("logprobs", "prompt_logprobs"):
        k = getattr(params, name)
        if k is not None and k > vocab_size:
            raise ValueError(f"{name}: expected at most {vocab_size}, the vocabulary, found {k}")


def _masks(params: SamplingParams, stop_ids: frozenset[int], vocab_size: int) -> list[np.ndarray | None]:
    """What may be drawn: before min_tokens tokens, and from then on."""
    allowed, banned = params.allowed_token_ids, params.banned_token_ids or ()
    wanted = "expected at least one token that may be drawn"
    late = _mask(vocab_size, allowed, banned, f"allowed_token_ids, banned_token_ids: {wanted}")
    if not params.min_tokens:
        return [late, late]
    return [_mask(vocab_size, allowed, (*banned, *stop_ids), f"min_tokens: {wanted} and ends no text"), late]


def _mask(
    vocab_size: int, allowed: Collection[int] | None, banned: Collection[int], what: str
) -> np.ndarray | None:
    """One bit per token that may be drawn; None if all may. Raises ValueError if none may."""
    if allowed is None and not banned:
        return None
    may = np.full(vocab_size, allowed is None)
    if allowed is not None:
        may[list(allowed)] = True
    may[list(banned)] = False
    if not may.any():
        raise ValueError(f"{what}, found none")
    return np.packbits(may, bitorder="little")


def _address(array: np.ndarray) -> int:
    return int(array.ctypes.data)
