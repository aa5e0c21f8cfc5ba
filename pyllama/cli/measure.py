"""Wall time of prompts and of generation, taken inside the engine.

A probe is a request that notes the time whenever a token is drawn for it, and decides itself what
it computes next. So a prompt at depth d is timed over a cache that really holds d tokens, and no
time is subtracted from another: the clock starts when the first d tokens have been read.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pyllama.request import Request
from pyllama.sampler import Sampler
from pyllama.sampling import SamplingParams

if TYPE_CHECKING:
    from pyllama.llm import LLM

GREEDY = SamplingParams(temperature=0.0)


@dataclass(frozen=True)
class Test:
    """One row of llama-bench: a prompt, a generation or both, after `n_depth` tokens."""

    n_prompt: int
    n_gen: int
    n_depth: int

    @property
    def name(self) -> str:
        """pp512, tg128, pp512+tg128, pp512 @ d4096"""
        parts = [f"{kind}{n}" for kind, n in (("pp", self.n_prompt), ("tg", self.n_gen)) if n]
        return "+".join(parts) + (f" @ d{self.n_depth}" if self.n_depth else "")

    @property
    def before(self) -> int:
        """Tokens read before the clock starts: a generation needs one to go on from."""
        return self.n_depth if self.n_depth or self.n_prompt else 1

    @property
    def n_ctx(self) -> int:
        """Tokens that are computed in all."""
        return self.before + self.n_prompt + self.n_gen


@dataclass(frozen=True)
class BatchTest:
    """One row of llama-batched-bench: `pl` prompts of `pp` tokens at once, `tg` tokens for each."""

    pp: int
    tg: int
    pl: int

    def n_ctx(self, prefill_chunk: int) -> int:
        """Tokens of the longest sequence: the first to be read draws on until the last is read."""
        return self.pp + self.tg + -(-self.pl * self.pp // prefill_chunk)


def greedy(prompt: list[int]) -> Sampler:
    """Draws the most probable token of any vocabulary."""
    return Sampler(GREEDY, prompt, index=0, n_max=len(prompt), stop_ids=frozenset(), vocab_size=1)


class Probe(Request):
    """Reads prompts one after the other, then draws `n_gen` tokens.

    marks: the time after each prompt and after each further token. What is drawn at the end of a
    prompt is dropped if another prompt follows.
    """

    def __init__(self, prompts: Sequence[list[int]], n_gen: int) -> None:
        super().__init__(prompts[0], GREEDY, sampler=greedy(prompts[0]))
        self.unread = list(prompts[1:])
        self.n_gen = n_gen
        self.marks: list[float] = []

    def accept(self, token: int) -> bool:
        """Called by the engine with each token drawn; True when the probe is over."""
        self.marks.append(time.perf_counter())
        if self.unread:
            self.ids += self.unread.pop(0)
        elif self.n_gen:
            self.ids.append(token)
            self.n_gen -= 1
        else:
            self.finish_reason = "length"
        return self.finish_reason is not None


class BatchProbe(Request):
    """One of a batch: draws until the last of them has read its prompt, then `n_gen` tokens more.

    So all rows decode together while the generation is timed. While prompts are being read, those
    who have read theirs decode along, as in any serving: that time counts as prompt time.
    """

    def __init__(self, prompt: list[int], n_gen: int, batch: list[BatchProbe]) -> None:
        super().__init__(prompt, GREEDY, sampler=greedy(prompt))
        self.n_gen = n_gen
        self.batch = batch
        self.left = -1  # tokens still to draw, unknown until all have read
        self.last = 0.0

    def accept(self, token: int) -> bool:
        """Called by the engine with each token drawn; True when the probe is over."""
        self.last = time.perf_counter()
        self.ids.append(token)
        if self.first:
            self.left -= self.left > 0
        else:
            self.first = self.last
            if all(probe.first for probe in self.batch):
                for probe in self.batch:
                    probe.left = self.n_gen
        if self.left == 0:
            self.finish_reason = "length"
        return self.finish_reason is not None


def random_ids(llm: LLM, n: int, seed: int) -> list[int]:
    """n token ids."""
    ids: list[int] = np.random.default_rng(seed).integers(llm.tokenizer.vocab_size, size=n).tolist()
    return ids


def warm_up(llm: LLM, test: Test) -> None:
    """As llama-bench: the whole prompt, or one token."""
    time_test(llm, replace(test, n_gen=min(test.n_gen, 1)))


def time_test(llm: LLM, test: Test) -> float:
    """Seconds of `test`: from submission, or from the end of what is read before, to the end."""
    sizes = [n for n in (test.before, test.n_prompt) if n]
    probe = Probe([random_ids(llm, n, seed) for seed, n in enumerate(sizes)], test.n_gen)
    begin = time.perf_counter()
    llm._run([probe])
    return probe.marks[-1] - (probe.marks[0] if test.before else begin)


def time_batch(llm: LLM, test: BatchTest) -> tuple[float, float]:
    """Seconds from submission until all prompts are read, and from there to the end."""
    batch: list[BatchProbe] = []
    for seed in range(test.pl):
        batch.append(BatchProbe(random_ids(llm, test.pp, seed), test.tg, batch))
    begin = time.perf_counter()
    llm._run(list(batch))
    read = max(probe.first for probe in batch)
    return read - begin, max(probe.last for probe in batch) - read
