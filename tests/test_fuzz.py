"""Mutated files are loaded or refused with an error that names them; nothing else happens."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from fuzzrun import LOADED, OTHER, REFUSED, attempt, load_gguf
from ggufwriter import tiny_file
from hypothesis import given, settings
from hypothesis import strategies as st
from mutate import Parser, mutate, mutations

import pyllama.errors

TESTS = Path(__file__).parent


def test_parser_finds_every_field() -> None:
    """The fields of the small file, put together, are its header without a gap."""
    layout = Parser(tiny_file()).parse()
    at = 0
    for f in layout.fields:
        assert f.at == at, f.label
        at += f.size
    assert at == layout.header_end
    assert len(layout.tensors) == 4
    assert layout.splice() == layout.data


def test_mutations_are_reproducible() -> None:
    data = tiny_file()
    first, again = list(mutations(data, 7, 50)), list(mutations(data, 7, 50))
    assert first == again
    assert first[31] == mutate(Parser(data).parse(), 7, 31)
    assert len({new for _, new in first}) > 40
    assert first != list(mutations(data, 8, 50))


def test_reader_survives(tmp_path: Path) -> None:
    path, counts = tmp_path / "m.gguf", Counter[str]()
    for i, (description, data) in enumerate(mutations(tiny_file(), 1, 300)):
        path.write_bytes(data)
        outcome, message = attempt(load_gguf, str(path))
        assert outcome != OTHER, f"seed 1 mutation {i}: {description}\n{message}"
        counts[outcome] += 1
    assert counts[REFUSED] > 100
    assert counts[LOADED] > 30


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(2, 3))
def test_reader_survives_random_bytes(tail: bytes, version: int) -> None:
    counts = b"\1" + bytes(7) + b"\2" + bytes(7)
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"GGUF" + bytes([version, 0, 0, 0]) + counts + tail)
        file.flush()
        assert attempt(load_gguf, file.name)[0] != OTHER


def run_mutate(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "tiny.gguf").write_bytes(tiny_file())
    root = str(Path(pyllama.errors.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, str(folder)])}
    command = [sys.executable, str(TESTS / "mutate.py"), str(folder / "tiny.gguf"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_command_line(tmp_path: Path) -> None:
    done = run_mutate(tmp_path, "-n", "60", "--seed", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 mutations of seed 3" in done.stdout
    assert "0 other exception, 0 crash, 0 hang" in done.stdout


LOADER = """
import os, time
def load(path):
    i = int(path.split("-")[-1].split(".")[0])
    if i == 2: os.abort()
    if i == 4: time.sleep(100)
    if i == 6: raise KeyError(path)
    if i == 7:
        from pyllama.errors import ModelLoadError
        raise ModelLoadError("which file?")
    if i == 8: bytearray(8 << 30)
"""


def test_command_line_reports_what_is_wrong(tmp_path: Path) -> None:
    """A crash, a hang, an exception and a nameless error are each seen, and the rest is run."""
    (tmp_path / "loader.py").write_text(LOADER)
    keep = tmp_path / "keep"
    arguments = ["-n", "10", "--load", "loader:load", "--time-limit", "3", "--keep", str(keep)]
    done = run_mutate(tmp_path, *arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "5 loaded, 0 pyllama error, 3 other exception, 1 crash, 1 hang" in done.stdout
    assert "mutation 2: crash" in done.stdout
    assert "mutation 4: hang" in done.stdout
    layout = Parser(tiny_file()).parse()
    assert (keep / "tiny-1-2-crash.gguf").read_bytes() == mutate(layout, 1, 2)[1]
    assert len(list(keep.iterdir())) == 10


@pytest.mark.parametrize("arguments", [["--load", "no_such_module:load"], ["--seed", "x"]])
def test_command_line_that_cannot_run(tmp_path: Path, arguments: list[str]) -> None:
    assert run_mutate(tmp_path, *arguments).returncode == 2
