"""Types of the doors to csrc; what they do is said in _core.pyx and csrc/pyllama.h."""

from collections.abc import Callable
from typing import Any

import numpy as np

KV_BLOCK: int
QUERY_MAX: int
TILE_MAX: int
SUPPLY_BYTES: int
ACTS: tuple[str, ...]
KV_DTYPES: tuple[str, ...]
OP: np.dtype[Any]
BUFFER: np.dtype[Any]
MATRIX: np.dtype[Any]
LOGPROB: np.dtype[Any]
SAMPLING: np.dtype[Any]

def levels() -> list[tuple[str, bool]]: ...
def uniform(seed: int, counter: int) -> float: ...
def act_bytes(act: int, k: int) -> int: ...
def load_matrix(
    team: Team,
    kernels: Kernels,
    arena: Memory,
    matrix: np.ndarray,
    fd: int,
    offset: int,
    source: int,
    rope_head: int,
    rope_dim: int,
) -> str: ...

class Kernels:
    name: str
    lanes: int
    formats: dict[str, int]
    def __init__(self, name: str | None = None) -> None: ...
    def act(self, fmt: int) -> int: ...
    def block(self, fmt: int) -> int: ...
    def panel_bytes(self, fmt: int, n_cols: int) -> int: ...
    def dequantize(self, fmt: int, row: np.ndarray) -> np.ndarray: ...
    def adjust(self, logits: np.ndarray, params: np.ndarray) -> np.ndarray: ...
    def sample(self, logits: np.ndarray, params: np.ndarray) -> int: ...

class Team:
    def __init__(self, n_threads: int) -> None: ...
    def enter(self, main: Callable[[], object]) -> None: ...
    @property
    def size(self) -> int: ...

class Memory:
    size: int
    def __init__(self, size: int, hugepages: bool = True) -> None: ...
    def close(self) -> None: ...
    def view(self, offset: int, n: int) -> memoryview: ...
    def zero(self, offset: int, n: int) -> None: ...

class Batch:
    token: np.ndarray
    pos: np.ndarray
    seq: np.ndarray
    output: np.ndarray
    sampled: np.ndarray
    sampling: np.ndarray  # [max_outputs] of SAMPLING as mere bytes, which numpy copies faster
    counter: np.ndarray  # [max_outputs], a part of sampling
    block_table: np.ndarray
    def __init__(
        self, max_rows: int, max_outputs: int, max_seqs: int, max_blocks: int, vocab: int, n_threads: int
    ) -> None: ...
    def cancel(self, on: bool = True) -> None: ...
    @property
    def seconds(self) -> float: ...

class Program:
    def __init__(
        self, team: Team, kernels: Kernels, arena: Memory, workspace: Memory, kv: Memory, plan: Any
    ) -> None: ...
    def run(self, batch: Batch, n: int, m: int, sample: bool, logits: np.ndarray | None = None) -> bool: ...
