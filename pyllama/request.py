"""One request from prompt to result, and what its caller gets."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .sampling import SamplingParams

if TYPE_CHECKING:
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


@dataclass
class CompletionOutput:
    """One continuation. finish_reason: "stop" (an end token or a stop string) or "length"."""

    index: int
    text: str
    token_ids: list[int]
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass
class RequestOutput:
    """What became of a prompt."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool
    timings: Timings = field(default_factory=Timings)

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
        prompt: str | None = None,
        stop_ids: frozenset[int] = frozenset(),
        detokenize: TokenStream | None = None,
        pieces: queue.SimpleQueue[str | None] | None = None,
        logits: np.ndarray | None = None,
        max_tokens: int = 0,
    ) -> None:
        self.id = str(next(_ids))
        self.prompt, self.params, self.logits = prompt, params, logits
        self.ids = list(ids)
        self.n_prompt = len(ids)
        self.n_computed = 0  # tokens whose K and V are in the cache
        self.blocks: list[int] = []
        self.slot = -1  # its row of the batch's block table while it runs
        self.end = self.n_prompt + max_tokens
        self.stop_ids = frozenset() if params.ignore_eos else stop_ids
        self.stops = params.stop_strings()
        self.held = max((len(s) for s in self.stops), default=1) - 1  # a stop may begin in so much text
        self.seed = params.draw_seed()
        self.detokenize, self.pieces = detokenize, pieces
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
        if token in self.stop_ids:
            self.finish_reason, self.stop_reason = "stop", token
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
        found = [(at, s) for s in self.stops if (at := text.find(s)) >= 0]
        if found:
            at, self.stop_reason = min(found)
            self._out(text[:at])
            self.tail = ""
            return True
        keep = next((n for n in range(min(self.held, len(text)), 0, -1) if self._may_begin(text[-n:])), 0)
        self.tail = text[len(text) - keep :]
        self._out(text[: len(text) - keep])
        return False

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
            if not (rest and self._emit(rest)):
                self._out(self.tail)
        if self.pieces is not None:
            self.pieces.put(None)
        self.done.set()

    def output(self) -> RequestOutput:
        """The result so far."""
        n = len(self.ids) - self.n_prompt
        first, last = self.first or self.started, self.finished or self.first
        prefill, decode = first - self.started, last - first if self.first else 0.0
        timings = Timings(
            queue_s=max(0.0, self.started - self.submitted),
            ttft_s=max(0.0, self.first - self.submitted),
            prefill_s=prefill,
            decode_s=decode,
            engine_s=self.engine_s,
            prefill_tps=self.n_prompt / prefill if prefill > 0 else 0.0,
            decode_tps=(n - 1) / decode if decode > 0 else 0.0,
        )
        out = CompletionOutput(
            0, "".join(self.text), self.ids[self.n_prompt :], self.finish_reason, self.stop_reason
        )
        return RequestOutput(
            self.id, self.prompt, self.ids[: self.n_prompt], [out], self.done.is_set(), timings
        )
