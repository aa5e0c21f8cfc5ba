"""The engine thread: it owns the model and is the only one that computes.

Callers submit requests from any thread and wait. Each step puts rows of many sequences into one
forward: the next token of every running sequence, and chunks of the prompts that are being read.
"""

from __future__ import annotations

import atexit
import collections
import os
import threading
import time
import weakref
from collections.abc import Callable

from . import _core
from .cache import blocks_for
from .errors import Cancelled, NumericError, OutOfKVBlocks
from .model import Model
from .request import Request
from .sampler import Sampler
from .weights.source import ModelSource

REPORT_SECONDS = 0.05

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine:
    """Runs `model` on a thread of its own until close(). First `load`, then `wait`, then the rest."""

    def __init__(self, model: Model, prefix_cache: bool = True) -> None:
        self.model, self.prefix_cache = model, prefix_cache
        self._reset()

    def load(self, file: ModelSource) -> None:
        """Begins to load the model; `file` must stay open until `wait` or close() returns."""
        self._start(lambda team: self.model.load(file, team))

    def wait(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Returns when the model is loaded. Raises what loading raises.

        progress: called with (bytes done, bytes of the file) meanwhile and at the end.
        """
        total = self.model.file_bytes
        while not self.ready.wait(None if progress is None else REPORT_SECONDS):
            assert progress is not None
            progress(self.model.loading.done, total)
        if self.failure is not None:
            raise self.failure
        if progress is not None:
            progress(total, total)
        _engines.add(self)

    def _reset(self) -> None:
        """A state in which no other thread holds anything: at the start, and in a forked child."""
        self.lock = threading.RLock()  # a finalizer may call close() in the middle of anything
        self.work = threading.Condition(self.lock)
        self.waiting: collections.deque[Request] = collections.deque()
        self.running: list[Request] = []
        self.slots = list(range(self.model.max_batch - 1, -1, -1))  # free rows of the block table
        self.thread: threading.Thread | None = None
        self.closing = False
        self.failure: BaseException | None = None
        self.ready = threading.Event()

    def _start(self, prepare: Callable[[_core.Team], None]) -> threading.Thread:
        self.team = _core.Team(self.model.limits.n_threads)
        self.thread = threading.Thread(
            target=self.team.enter, args=(lambda: self._main(prepare),), name="pyllama", daemon=True
        )
        self.thread.start()
        return self.thread

    # ---- callers ----

    def submit(self, requests: list[Request]) -> None:
        """Queues requests. Raises Cancelled if the engine is closed."""
        with self.lock:
            if self.closing:
                raise Cancelled("the LLM is closed")
            if self.thread is None:  # the first use in a forked child
                self._start(self.model.start)
                self.ready.wait()
            self.waiting.extend(requests)
            self.work.notify()

    def cancel(self, requests: list[Request]) -> None:
        """Ends requests early, in the middle of a forward if need be."""
        with self.lock:
            live = [r for r in requests if not r.done.is_set()]
            for request in live:
                request.cancelled = True
            if live and any(r in self.running for r in live):
                self.model.batch.cancel()
            self.work.notify()

    def close(self) -> None:
        """Ends all requests with Cancelled, then the thread, which gives the memory back."""
        with self.lock:
            self.closing = True
            self.model.loading.stop()
            batch = getattr(self.model, "batch", None)
            if batch is not None:
                batch.cancel()
            self.work.notify()
            if self.thread is None:
                self.model.close()
                return
            thread = self.thread
        if threading.current_thread() is not thread:
            thread.join()

    def after_fork(self) -> None:
        """In the child: the parent's threads are gone, its requests are not ours."""
        if not self.closing:
            self._reset()
            self.model.pool.reset()

    # ---- the engine thread ----

    def _main(self, prepare: Callable[[_core.Team], None]) -> None:
        try:
            prepare(self.team)
        except BaseException as error:
            self.failure = error
            return
        finally:
            self.ready.set()
        try:
            while self._wait():
                self._step()
        except BaseException as error:  # a bug, or no memory: callers must hear of it
            self.closing = True
            self._end_all(error)
            raise
        else:
            self._end_all(Cancelled("the LLM was closed"))
        finally:
            self.model.close()

    def _wait(self) -> bool:
        """Sleeps until there is work; False when closing. Takes in new and cancelled requests."""
        with self.lock:
            while not (self.closing or self.waiting or self.running):
                self.work.wait()
            if self.closing:
                return False
            self.model.batch.cancel(False)
            for request in [r for r in (*self.running, *self.waiting) if r.cancelled]:
                self._drop(request, Cancelled("the request was cancelled"))
            while self.waiting and len(self.running) < self.model.max_batch:
                request = self.waiting[0]
                if self.running and not self._fits(request):
                    break
                request.slot = self.slots.pop()
                self._reuse(request)
                self.running.append(self.waiting.popleft())
        return True

    def _fits(self, request: Request) -> bool:
        """Whether a request may join those that run."""
        if request.logits is not None or self.running[0].logits is not None:
            return False  # a request for all its logits has the batch to itself
        return blocks_for(len(request.ids)) + len(self.running) <= self.model.pool.available

    def _reuse(self, request: Request) -> None:
        """What the cache still holds of the request's beginning need not be computed."""
        if not self.prefix_cache or request.logits is not None or request.n_scored:
            return
        request.blocks = self.model.pool.find(request.ids)
        request.n_computed = len(request.blocks) * _core.KV_BLOCK
        self.model.batch.block_table[request.slot, : len(request.blocks)] = request.blocks
        if not request.started:  # or it is its own work that was kept when it was postponed
            request.cached_tokens = request.n_computed

    def _drop(self, request: Request, error: BaseException | None) -> None:
        """Takes a request out; the lock is held, or no caller can see it any more."""
        self.model.pool.give_back(request.blocks)
        if request in self.running:
            self.running.remove(request)
            self.slots.append(request.slot)
        elif request in self.waiting:
            self.waiting.remove(request)
        request.finish(error)

    def _end_all(self, error: BaseException) -> None:
        with self.lock:
            for request in [*self.running, *self.waiting]:
                self._drop(request, error)

    def _step(self) -> None:
        """One forward over as many rows as there is room for."""
        plan = self._schedule()
        if not plan:
            return
        model, batch = self.model, self.model.batch
        n, m, logits = self._fill(plan)
        if not model.program.run(batch, n, m, logits is None, logits):
            return  # cancelled: nothing has moved on, the rows are computed again
        drawn = iter(batch.sampled[:m].tolist())
        for request, count in plan:
            if request.n_computed < request.n_scored:
                for _ in range(request.n_computed, min(request.n_computed + count, request.n_scored)):
                    next(drawn)  # of a row that was only scored
            request.n_computed += count
            if self.prefix_cache:
                model.pool.remember(request.ids, request.blocks, request.n_computed)
            request.engine_s += batch.seconds
            if request.n_computed < len(request.ids):
                continue
            token = next(drawn) if request.logits is None else None
            error = self._no_number(request) if token == _core.NO_TOKEN else None
            if token is None or error is not None or request.accept(token):
                with self.lock:
                    self._drop(request, error)

    def _no_number(self, request: Request) -> NumericError:
        return NumericError(
            f"{self.model.path}: expected logits that are numbers, found none after {len(request.ids)} "
            "tokens: weights are no numbers, or too large for float32"
        )

    def _schedule(self) -> list[tuple[Request, int]]:
        """Requests and how many of their tokens to compute: first those that decode."""
        room = self.model.prefill_chunk
        plan = []
        for request in sorted(self.running, key=lambda r: len(r.ids) - r.n_computed > 1):
            left = len(request.ids) - request.n_computed
            count = min(left, room) if left > 1 else 1
            if count > 0 and request in self.running and self._reserve(request, count):
                plan.append((request, count))
                room -= count if left > 1 else 0
        return [(r, n) for r, n in plan if r in self.running]

    def _reserve(self, request: Request, count: int) -> bool:
        """Blocks for `count` more tokens; if none are left, the youngest request starts over later."""
        need = blocks_for(request.n_computed + count)
        while len(request.blocks) < need:  # one by one: each may cost another request its place
            try:
                block = self.model.pool.take()
                self.model.batch.block_table[request.slot, len(request.blocks)] = block
                request.blocks.append(block)
            except OutOfKVBlocks:
                youngest = self.running[-1]
                if len(self.running) == 1:
                    most = self.model.kv_plan.n_blocks * _core.KV_BLOCK
                    error = OutOfKVBlocks(
                        f"the KV cache holds {most} tokens and this request needs more: "
                        "raise kv_bytes or lower n_ctx"
                    )
                    with self.lock:
                        self._drop(request, error)
                    return False
                self._postpone(youngest)
                if youngest is request:
                    return False
        return True

    def _postpone(self, request: Request) -> None:
        """Back to the queue without its blocks: recomputed, it goes on with the same bits."""
        self.model.pool.give_back(request.blocks)
        request.n_computed = 0
        with self.lock:
            self.running.remove(request)
            self.slots.append(request.slot)
            self.waiting.appendleft(request)

    def _fill(self, plan: list[tuple[Request, int]]):
        """Writes the rows into the batch: (rows, output rows, array for logits or None)."""
        batch, n, m, logits = self.model.batch, 0, 0, None
        for request, count in plan:
            first, end = request.n_computed, request.n_computed + count
            rows = slice(n, n + count)
            if count == 1:
                batch.token[n], batch.pos[n] = request.ids[first], first
            else:
                batch.token[rows] = request.ids[first:end]
                batch.pos[rows] = range(first, end)
            batch.seq[rows] = request.slot
            n += count
            if not request.started:
                request.started = time.perf_counter()
            if request.logits is not None:
                logits = request.logits[first:end]
                batch.output[:count] = range(count)
                m = count
            elif request.sampler is not None:
                m = self._ask(request, request.sampler, rows, m)
        return n, m, logits

    def _ask(self, request: Request, sampler: Sampler, rows: slice, m: int) -> int:
        """Writes the outputs that `rows` of a request have, from output m on; returns the next free one."""
        batch, first = self.model.batch, request.n_computed
        end = first + rows.stop - rows.start
        if first < sampler.n_scored:
            k = min(end, sampler.n_scored) - first
            batch.output[m : m + k] = range(rows.start, rows.start + k)
            batch.sampling[m : m + k] = sampler.scored[first : first + k]
            m += k
        if end == len(request.ids):
            batch.output[m] = rows.stop - 1
            batch.sampling[m] = sampler.record
            batch.counter[m] = end - request.n_prompt
            m += 1
        return m


def _after_fork_in_child() -> None:
    for engine in list(_engines):
        engine.after_fork()


@atexit.register
def _close_all() -> None:
    for engine in list(_engines):
        engine.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
