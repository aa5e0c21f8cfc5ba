"""What this machine can do at best: reading memory, multiplying. What speed is compared with."""

from __future__ import annotations

import os
from dataclasses import dataclass

from . import _core
from .cpu import default_threads

# Of three times what the last cache holds almost nothing is still there when its turn comes again.
READ_BYTES = min(max(256 << 20, 3 * _core.l3_bytes()), 1 << 30)


@dataclass(frozen=True)
class Roofline:
    """All threads together. macs_per_s: multiply-adds by kind of activations: "F32", "BF16", "I8"."""

    bytes_per_s: float
    macs_per_s: dict[str, float]
    n_threads: int


class Probe:
    """Measures the limits as often as wanted; keeps READ_BYTES of memory.

    Raises ValueError for a PYLLAMA_ISA that is none, MemoryError.
    """

    def __init__(self, n_threads: int | None = None) -> None:
        self._kernels = _core.Kernels(os.environ.get("PYLLAMA_ISA") or None)
        self._n_threads = n_threads or default_threads()
        self._memory = _core.Memory(READ_BYTES)
        self._memory.zero(0, READ_BYTES)

    def __call__(self, seconds: float = 0.2) -> Roofline:
        """seconds: for each of the limits."""
        found: dict[str, float] = {}
        team = _core.Team(self._n_threads)

        def main() -> None:
            found["read"] = _core.bandwidth(team, self._kernels, self._memory, seconds)
            for act, name in enumerate(_core.ACTS):
                found[name] = _core.peak(team, self._kernels, act, seconds / 4)

        team.enter(main)
        return Roofline(found.pop("read"), found, self._n_threads)
