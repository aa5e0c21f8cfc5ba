"""Model: a file's weights in memory and the Program that runs over them."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
import pkgutil
import resource

import numpy as np

from . import _core, models
from .cache import BlockPool, blocks_for
from .cpu import available_memory
from .errors import Cancelled, InsufficientMemoryError, ModelLoadError, UnsupportedModelError
from .fusion import fuse
from .models.llama import Llama
from .plan import KVPlan, Limits, Plan, Tables, make_plan
from .program import Weight
from .rope import read_rope
from .weights.binder import Binder, read_vector
from .weights.gguf_header import load_error, show
from .weights.source import ModelSource

log = logging.getLogger("pyllama")


def architecture(source: ModelSource) -> type[Llama]:
    """The class of pyllama.models.<general.architecture>. Raises UnsupportedModelError."""
    name = source.get_str("general.architecture")
    able = sorted(m.name for m in pkgutil.iter_modules(models.__path__))
    if name not in able:
        raise load_error(
            source.path,
            "general.architecture",
            f"one of {', '.join(able)}",
            show(name),
            UnsupportedModelError,
        )
    found: type[Llama] = importlib.import_module(f"pyllama.models.{name}").MODEL
    return found


class Model:
    """Weights, KV memory and Program of one file.

    Made in any thread; `load` and `forward` run on the engine thread, inside its Team.
    n_ctx: tokens per sequence, None for the file's own. kv_bytes: budget of the KV cache, None for
    what max_batch sequences of n_ctx need, or half of what is available if that is less.
    Raises ModelLoadError, UnsupportedModelError; InsufficientMemoryError when it cannot fit.
    """

    def __init__(
        self,
        source: ModelSource,
        *,
        n_ctx: int | None,
        n_threads: int,
        compute: str,
        quantize: str | None = None,
        kv_dtype: str | None,
        kv_bytes: int | None,
        prefill_chunk: int,
        max_batch: int,
        use_hugepages: bool,
        use_mlock: bool = False,
    ) -> None:
        self.path = source.path
        self.file_bytes = source.size
        self.kernels = _core.Kernels(os.environ.get("PYLLAMA_ISA") or None)
        arch = architecture(source)
        if not source.tensors:
            raise ModelLoadError(
                f"{source.path}: tensors: expected a model's weights, found none: a vocabulary alone"
            )
        self.config = arch.read_config(source)
        self.n_ctx = self.config.n_ctx if n_ctx is None else n_ctx
        if not 1 <= self.n_ctx <= self.config.n_ctx:
            raise ValueError(f"n_ctx: expected 1 to {self.config.n_ctx}, the model's own, found {n_ctx}")
        c, name = self.config, source.get_str("general.architecture")
        binder = Binder(source, self.kernels, compute, quantize)
        rope = read_rope(source, name, c.rope_dim, c.rope_base, self.n_ctx)
        self.graph = arch(c, arch.bind(binder, c), rope).record()
        if binder.kept:
            log.warning(
                "%s: quantize: kept %s and %d more as they are: rows are no multiple of the block of %s",
                source.path,
                binder.kept[0],
                len(binder.kept) - 1,
                quantize,
            )
        self.nodes = fuse(self.graph.nodes)
        self.tables = Tables(self.kernels)
        rows = prefill_chunk + max_batch  # any of which may be scored
        self.limits = Limits(rows, rows, n_threads)
        dtype = _core.KV_DTYPES.index(kv_dtype or ("f32" if compute == "f32" else "f16"))
        self.kv_plan = KVPlan(self.config.n_layers, self.config.n_kv_heads, self.config.head_dim, dtype, 1)
        self.plan = make_plan(self.graph, self.nodes, self.tables, self.limits, self.kv_plan)
        self._budget(kv_bytes, max_batch, explicit=n_ctx is not None)
        self.hugepages, self.mlock = use_hugepages, use_mlock
        self.max_batch, self.prefill_chunk = max_batch, prefill_chunk
        self.loading = _core.Loading()

    def memory_need(self) -> dict[str, int]:
        """Bytes by purpose, known before any is taken."""
        kv = self.kv_plan
        return {
            "weights": self.tables.size,
            "kv": kv.block_bytes * kv.n_blocks,
            "workspace": self.plan.workspace_bytes,
        }

    def _budget(self, kv_bytes: int | None, max_batch: int, explicit: bool) -> None:
        """Sets the number of KV blocks. Raises InsufficientMemoryError naming the file if it cannot fit."""
        block, one = self.kv_plan.block_bytes, blocks_for(self.n_ctx)
        left = available_memory()
        fixed = self.tables.size + self.plan.workspace_bytes
        room = None if left is None else left - fixed
        n = one * max_batch if kv_bytes is None else kv_bytes // block
        if kv_bytes is not None and n < 1:
            raise ValueError(
                f"kv_bytes: expected at least {block}, a block of {_core.KV_BLOCK} tokens, found {kv_bytes}"
            )
        if kv_bytes is None and room is not None:
            n = min(n, max(one if explicit else 1, room // 2 // block))
        if n < 1 or (room is not None and n * block > room):
            raise InsufficientMemoryError(
                f"{self.path}: memory: needs {fixed} bytes for weights and workspace and {max(n, 1) * block} "
                f"for the KV cache, {left} are available"
            )
        self.kv_plan = dataclasses.replace(self.kv_plan, n_blocks=n)
        self.plan.kv = self.kv_plan

    def load(self, source: ModelSource, team: _core.Team) -> None:
        """Takes the memory and fills it; on the engine thread. `loading` tells how far it is.

        Raises ModelLoadError, InsufficientMemoryError; Cancelled if `loading` was stopped.
        """
        try:
            self.arena = _core.Memory(self.tables.size, self.hugepages)
            self.kv = _core.Memory(self.kv_plan.block_bytes * self.kv_plan.n_blocks, self.hugepages)
            self._load_matrices(source, team)
            self._load_vectors(source)
            if self.mlock:
                self._lock()
            self.pool = BlockPool(self.kv_plan, self.kv)
            self.start(team)
        except MemoryError as error:
            self.close()
            raise InsufficientMemoryError(f"{self.path}: memory: {error}") from error
        except BaseException:
            self.close()
            raise

    def _load_matrices(self, source: ModelSource, team: _core.Team) -> None:
        """All in one call, which leaves the interpreter to whoever makes the tokenizer meanwhile."""
        weights = [w for _, w in self.tables.matrices.values()]
        loads = np.array([self._load_of(source, w) for w in weights], _core.LOAD)
        wrong, index = _core.load_matrices(
            team, self.kernels, self.arena, self.plan.matrices, loads, self.loading
        )
        if self.loading.stopped:
            raise Cancelled(f"{self.path}: loading was interrupted")
        if wrong:
            name = weights[index].name
            raise ModelLoadError(f"{source.tensor(name).path}: {name}: {wrong}")

    def _load_of(self, source: ModelSource, w: Weight) -> tuple[int, int, int, int, int]:
        tensor = source.tensor(w.name)
        offset = tensor.offset + w.first_row * (tensor.nbytes // tensor.shape[0])
        return offset, tensor.fd, self.kernels.formats[w.source], w.rope_head, w.rope_dim

    def _load_vectors(self, source: ModelSource) -> None:
        for index, w in self.tables.vectors.values():
            view = self.arena.view(int(self.plan.vectors[index]), 4 * w.n_cols)
            view[:] = memoryview(read_vector(source, w).tobytes())
            view.release()

    def _lock(self) -> None:
        """Raises InsufficientMemoryError naming the limit if the weights cannot be kept in memory."""
        try:
            self.arena.lock()
        except OSError as error:
            limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
            allowed = "unlimited" if limit == resource.RLIM_INFINITY else f"{limit} bytes"
            raise InsufficientMemoryError(
                f"{self.path}: use_mlock: cannot lock {self.arena.size} bytes of weights: {error.strerror}; "
                f"the limit (ulimit -l) is {allowed}"
            ) from error

    def start(self, team: _core.Team) -> None:
        """A workspace, Program and Batch for `team`; again after a fork."""
        self.workspace = _core.Memory(self.plan.workspace_bytes, self.hugepages)
        self.program = _core.Program(team, self.kernels, self.arena, self.workspace, self.kv, self.plan)
        self.batch = _core.Batch(
            self.limits.max_rows,
            self.limits.max_outputs,
            self.max_batch,
            blocks_for(self.n_ctx),
            self.config.vocab_size,
            self.limits.n_threads,
        )

    def close(self) -> None:
        """Gives all memory back; nothing may run."""
        for name in ("program", "batch", "pool"):
            self.__dict__.pop(name, None)
        for name in ("arena", "kv", "workspace"):
            memory = self.__dict__.pop(name, None)
            if memory is not None:
                memory.close()


def inspect_plan(model: Model) -> tuple[Plan, list[str]]:
    """The plan and its nodes as text, for `inspect --program`."""
    marks = {0: " ", 1: ":", 2: ".", 3: "|"}
    lines = [
        f"{marks[int(op['barrier'])]} {node.describe()}"
        for op, node in zip(model.plan.ops, model.nodes, strict=True)
    ]
    return model.plan, lines
