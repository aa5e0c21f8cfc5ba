"""What an LLM asks of the system's memory: huge pages, locks."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import re
from pathlib import Path

import pytest
from ggufmodel import ModelFiles

from pyllama import LLM, InsufficientMemoryError, _core

STATUS = Path("/proc/self/status")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models")
    return ModelFiles(folder)(format="Q8_0", dim=256, hidden_dim=512, n_layers=4)


def locked() -> int:
    """Bytes that this process has locked."""
    found = re.search(r"VmLck:\s+(\d+) kB", STATUS.read_text())
    assert found
    return int(found[1]) * 1024


def may_lock(n: int) -> bool:
    """Whether the system lets this user lock n bytes, asked without pyllama."""
    with mmap.mmap(-1, n) as memory:
        start = ctypes.c_char.from_buffer(memory)
        refused = ctypes.CDLL(None).mlock(ctypes.byref(start), ctypes.c_size_t(n))
        del start  # else the mapping cannot be closed
    return not refused


@pytest.mark.skipif(not may_lock(64 << 20), reason="this user may not lock 64 MiB of memory")
def test_locked_weights_are_unlocked_by_close(path: str) -> None:
    before = locked()
    with LLM(path) as llm:
        assert locked() == before
    with LLM(path, use_mlock=True) as llm:
        assert locked() - before >= 1 << 20
        assert llm.generate("a", max_tokens=2)
    assert locked() == before


class Refusing(_core.Memory):
    """As for a user whose limit is too low."""

    def lock(self) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def test_a_lock_that_the_system_refuses_is_named(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core, "Memory", Refusing)
    with pytest.raises(
        InsufficientMemoryError, match=r"use_mlock: cannot lock \d+ bytes .+ \(ulimit -l\) is "
    ):
        LLM(path, use_mlock=True)


def test_huge_pages_change_no_bit(path: str) -> None:
    logits = []
    for use_hugepages in (True, False):
        with LLM(path, use_hugepages=use_hugepages) as llm:
            logits.append(llm.logits([1, 2, 3]).tobytes())
    assert logits[0] == logits[1]
