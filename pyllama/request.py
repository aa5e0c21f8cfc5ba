"""One request from prompt to result, and what its caller gets."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .sampling import SamplingParams

if TYPE_CHECKING:
    from .sampler import LogprobRow, Sampler
    from .tokenizer import TokenStream

_ids = itertools.count()


@dataclass
class Timings:
    """Seconds and rates of a request. engine_s: time inside forwards that it took part in."""

    queue_s: float = 0.0
    ttft_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    engine_s: float = 0.0
    prefill_tps: float = 0.0
    decode_tps: float = 0.0


@dataclass(frozen=True, slots=True)
class Logprob:
    """Of one token at one position: ln of its probability in softmax(logits), its place among all tokens
    (1: the most probable), and what it reads like alone."""

    logprob: float
    rank: int
    decoded_token: str


Logprobs = dict[int, Logprob]  # by token id: the token that is there first, then the best


@dataclass
class CompletionOutput:
    """One continuation. finish_reason: "stop" (an end token or a stop string) or "length".

    logprobs: one dict per token id, if they were asked for; cumulative_logprob: the sum of the tokens' own.
    """

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None = None
    logprobs: list[Logprobs] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass
class RequestOutput:
    """What became of a prompt. prompt_logprobs: one dict per prompt token, None for the first, which
    follows nothing; only if they were asked for. cached_tokens: of the prompt's, those that the KV
    cache still held."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    prompt_logprobs: list[Logprobs | None] | None
    outputs: list[CompletionOutput]
    finished: bool
    timings: Timings = field(default_factory=Timings)
    cached_tokens: int = 0

    @property
    def text(self) -> str:
        """outputs[0].text"""
        return self.outputs[0].text


class Request:
    """A sequence on its way through the engine. The engine thread writes; callers wait and read."""

    def __init__(
        self,
        ids: list[int],
        params: SamplingParams,
        *,
        index: int = 0,
        prompt: str | None = None,
        stop_ids: frozenset[int] = frozenset(),
        sampler: Sampler | None = None,
        detokenize: TokenStream | None = None,
        spell: Callable[[int], str] = str,
        pieces: queue.SimpleQueue[str | None] | None = None,
        logits: np.ndarray | None = None,
        max_tokens: int = 0,
    ) -> None:
        self.id, self.index = str(next(_ids)), index
        self.prompt, self.params, self.logits = prompt, params, logits
        self.ids = list(ids)
        self.n_prompt = len(ids)
        self.n_computed = 0  # tokens whose K and V are in the cache
        self.cached_tokens = 0  # of these, those that were there before
        self.blocks: list[int] = []
        self.slot = -1  # its row of the batch's block table while it runs
        self.end = self.n_prompt + max_tokens
        self.stop_ids = stop_ids
        self.stops = params.stop_strings()
        self.unchecked = self.n_prompt + params.min_tokens  # stop strings are looked for after so many ids
        self.held = max((len(s) for s in self.stops), default=1) - 1  # a stop may begin in so much text
        self.sampler, self.n_scored = sampler, 0 if sampler is None else sampler.n_scored
        self.take_note = sampler.put if sampler is not None and sampler.remembers else None
        self.detokenize, self.spell, self.pieces = detokenize, spell, pieces
        self.text: list[str] = []
        self.tail = ""  # text not yet out: it may begin a stop string
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self.error: BaseException | None = None
        self.cancelled = False
        self.done = threading.Event()
        self.submitted = time.perf_counter()
        self.started = self.first = self.finished = 0.0
        self.engine_s = 0.0

    def accept(self, token: int) -> bool:
        """Takes a drawn token; True when the request is over."""
        if not self.first:
            self.first = time.perf_counter()
        self.ids.append(token)
        if self.take_note is not None:
            self.take_note(token)
        if token in self.stop_ids:
            self.finish_reason, self.stop_reason = "stop", token
            if self.detokenize is not None and self.params.include_stop_str_in_output:
                self._out(self.tail + self.detokenize.put(token))
                self.tail = ""
        elif self.detokenize is not None and self._emit(self.detokenize.put(token)):
            self.finish_reason = "stop"
        elif len(self.ids) >= self.end:
            self.finish_reason = "length"
        return self.finish_reason is not None

    def _emit(self, piece: str) -> bool:
        """Passes text on, but what may begin a stop string; True if one was completed."""
        if not self.stops:
            self._out(piece)
            return False
        text = self.tail + piece
        if len(self.ids) > self.unchecked and (found := self._find_stop(text, len(self.tail))):
            at, stop = found
            self._out(text[: at + len(stop)] if self.params.include_stop_str_in_output else text[:at])
            self.tail, self.stop_reason = "", stop
            return True
        keep = next((n for n in range(min(self.held, len(text)), 0, -1) if self._may_begin(text[-n:])), 0)
        self.tail = text[len(text) - keep :]
        self._out(text[: len(text) - keep])
        return False

    def _find_stop(self, text: str, old: int) -> tuple[int, str] | None:
        """The first stop string that ends after `old` characters, and where it begins."""
        found = [(at, s) for s in self.stops if (at := text.find(s, max(0, old - len(s) + 1))) >= 0]
        return min(found, default=None)

    def _may_begin(self, text: str) -> bool:
        return any(s.startswith(text) for s in self.stops)

    def _out(self, piece: str) -> None:
        if piece:
            self.text.append(piece)
            if self.pieces is not None:
                self.pieces.put(piece)

    def finish(self, error: BaseException | None = None) -> None:
        """Ends the request and wakes its caller."""
        self.finished = time.perf_counter()
        self.error = error
        if error is None and self.detokenize is not None:
            rest = "" if isinstance(self.stop_reason, str) else self.detokenize.flush()
            if rest and self._emit(rest):
                self.finish_reason = "stop"
            self._out(self.tail)
        if self.pieces is not None:
            self.pieces.put(None)
        self.done.set()

    def completion(self) -> CompletionOutput:
        """The continuation so far."""
        rows = None if self.sampler is None else self.sampler.logprobs()
        ids = self.ids[self.n_prompt :] if rows is None else [row[0][1] for row in rows]
        return CompletionOutput(
            self.index,
            "".join(self.text),
            ids,
            None if rows is None else sum(row[0][0] for row in rows),
            None if rows is None else self._spelled(rows),
            self.finish_reason,
            self.stop_reason,
        )

    def prompt_logprobs(self) -> list[Logprobs | None] | None:
        """Of the prompt's tokens so far; None if they were not asked for."""
        if self.params.prompt_logprobs is None or self.sampler is None:
            return None
        known = self.n_scored if self.first else min(self.n_computed, self.n_scored)
        return [None, *self._spelled(self.sampler.prompt_logprobs(known))]

    def _spelled(self, rows: list[LogprobRow]) -> list[Logprobs]:
        return [
            {token: Logprob(value, rank, self.spell(token)) for value, token, rank in row} for row in rows
        ]


def result(requests: Sequence[Request]) -> RequestOutput:
    """What became of a prompt so far: of its continuations, all of which began with it."""
    first = requests[0]
    outputs = [r.completion() for r in requests]
    submitted = min(r.submitted for r in requests)
    started = min((r.started for r in requests if r.started), default=submitted)
    drawn = min((r.first for r in requests if r.first), default=0.0)
    finished = max(r.finished or r.first for r in requests)
    n = sum(len(out.token_ids) for out in outputs) - sum(1 for r in requests if r.first)
    prefill, decode = (drawn or started) - started, finished - drawn if drawn else 0.0
    timings = Timings(
        queue_s=max(0.0, started - submitted),
        ttft_s=max(0.0, drawn - submitted),
        prefill_s=prefill,
        decode_s=decode,
        engine_s=max(r.engine_s for r in requests),
        prefill_tps=(first.n_prompt - first.cached_tokens) / prefill if prefill > 0 else 0.0,
        decode_tps=n / decode if decode > 0 else 0.0,
    )
    return RequestOutput(
        first.id,
        first.prompt,
        first.ids[: first.n_prompt],
        first.prompt_logprobs(),
        outputs,
        all(r.done.is_set() for r in requests),
        timings,
        first.cached_tokens,
    )
