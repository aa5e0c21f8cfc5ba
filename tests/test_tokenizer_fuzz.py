"""Mutated tokenizer files are loaded or refused with an error that names them; nothing else happens."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import fuzz_tokenizers
from clirun import ENV
from fuzz_tokenizers import fuzz, gguf_seed, load, mutated, seeds
from fuzzrun import LOADED, REFUSED


def test_the_seeds_are_valid(tmp_path: Path) -> None:
    for files in seeds():
        for name, text in files.items():
            (tmp_path / f"{name}.json").write_text(text)
        load(str(tmp_path))
    (tmp_path / "model.gguf").write_bytes(gguf_seed())
    load(str(tmp_path / "model.gguf"))


def test_mutations_are_reproducible(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for i in range(20):
        assert mutated(tmp_path / "a", 7, i)[0] == mutated(tmp_path / "b", 7, i)[0]
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_tokenizers_survive() -> None:
    counts = Counter[str]()

    def report(i: int, outcome: str, message: str) -> None:
        assert outcome in ("begin", LOADED, REFUSED), f"seed 1 mutation {i}: {message}"
        counts[outcome] += 1

    fuzz(1, 0, 400, report)
    assert counts[LOADED] > 50 and counts[REFUSED] > 150


def test_command_line() -> None:
    command = [sys.executable, fuzz_tokenizers.__file__, "-n", "40", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENV, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "40 mutations of seed 3: " in done.stdout
