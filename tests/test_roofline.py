"""The probes of the machine's limits, at every level that this CPU runs."""

import math

import pytest

from pyllama import _core

LEVELS = [name for name, runs in _core.levels() if runs]


@pytest.mark.parametrize("level", LEVELS)
def test_limits_are_found(level: str) -> None:
    """Under a sanitizer: without an integer that overflows or a byte read outside."""
    kernels, team, memory = _core.Kernels(level), _core.Team(1), _core.Memory(1 << 20)
    memory.zero(0, 1 << 20)
    found: list[float] = []

    def main() -> None:
        found.append(_core.bandwidth(team, kernels, memory, 0.001))
        found.extend(_core.peak(team, kernels, act, 0.001) for act in range(len(_core.ACTS)))

    team.enter(main)
    assert len(found) == 4 and all(rate > 0 and math.isfinite(rate) for rate in found)
