"""Models in several files: all of them are read through the first, and each has to be its part."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from ggufmodel import Shape, bits, metadata, random_ids, write_model
from ggufwriter import write_gguf

from pyllama import LLM
from pyllama.errors import ModelLoadError
from pyllama.weights.gguf import GGML_TYPES, GGUFFile

TYPE_IDS = {name: kind for kind, (name, _, _) in GGML_TYPES.items()}
SHAPE = Shape(format="Q8_0", dim=96, n_heads=6, hidden_dim=160)
N = 3


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The model in one file."""
    return write_model(tmp_path_factory.mktemp("whole") / "model.gguf", SHAPE)


class Shards:
    """The model in N files, the first without tensors, some of them not as they should be.

    keys and tensors: what to change in shard i's metadata, and in its list of tensors.
    """

    def __init__(self, whole: str, folder: Path) -> None:
        self.folder = folder
        with GGUFFile(whole) as file:
            self.tensors = [
                (t.name, t.shape[::-1], TYPE_IDS[t.type], file.read(t.name)) for t in file.tensors.values()
            ]

    def path(self, i: int, n: int = N) -> str:
        return str(self.folder / f"model-{i + 1:05}-of-{n:05}.gguf")

    def write(
        self,
        keys: dict[int, list[Any]] | None = None,
        tensors: Callable[[int, list[Any]], list[Any]] = lambda i, own: own,
        alignment: int = 32,
    ) -> str:
        for i in range(N):
            pairs = {
                "split.no": ("split.no", "u16", i),
                "split.count": ("split.count", "u16", N),
                "split.tensors.count": ("split.tensors.count", "i32", len(self.tensors)),
            }
            pairs.update({pair[0]: pair for pair in (keys or {}).get(i, [])})
            own = [t for j, t in enumerate(self.tensors) if i and j % (N - 1) == i - 1]
            first = metadata(SHAPE) if i == 0 else []
            kept = [pair for pair in pairs.values() if pair[1]]
            write_gguf(self.path(i), [*first, *kept], tensors(i, own), alignment=alignment if i else 32)
        return self.path(0)


@pytest.fixture
def shards(whole: str, tmp_path: Path) -> Shards:
    return Shards(whole, tmp_path)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


# ---- whole again


@pytest.mark.parametrize("alignment", [32, 256])
def test_tensors_are_those_of_one_file(whole: str, shards: Shards, alignment: int) -> None:
    path = shards.write(alignment=alignment)
    before = open_files()
    with GGUFFile(path) as file, GGUFFile(whole) as one:
        assert set(file.tensors) == set(one.tensors)
        assert {t.path for t in file.tensors.values()} == {shards.path(1), shards.path(2)}
        assert all(file.read(name) == one.read(name) for name in one.tensors)
        assert file.size == sum(os.path.getsize(shards.path(i)) for i in range(N))
        assert file.metadata["tokenizer.ggml.tokens"] == one.metadata["tokenizer.ggml.tokens"]
        name = next(iter(file.tensors))
    assert open_files() == before
    with pytest.raises(ValueError, match="closed"):
        file.read(name)


def test_logits_are_those_of_one_file(whole: str, shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, found = random_ids(20), []
    shards.write()
    monkeypatch.chdir(shards.folder)
    for path in (whole, os.path.basename(shards.path(0))):
        with LLM(path, n_threads=2, use_hugepages=False) as llm:
            found.append(bits(llm.logits(ids)))
    assert np.array_equal(*found)


@pytest.mark.parametrize("small_first", [False, True])
def test_files_of_the_gguf_package(shards: Shards, tmp_path: Path, small_first: bool) -> None:
    writer = gguf.GGUFWriter(tmp_path / "w.gguf", "llama", split_max_tensors=2, small_first_shard=small_first)
    expected = {}
    for i in range(5):
        data = np.random.default_rng(i).standard_normal((3, 8)).astype("<f4")
        writer.add_tensor(f"t{i}", data)
        expected[f"t{i}"] = data.tobytes()
    writer.add_array("test.numbers", [1, 2, 3])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    first = min(tmp_path.glob("w-00001-of-*.gguf"))
    with GGUFFile(first) as file:
        assert {name: file.read(name) for name in file.tensors} == expected
        assert file.get_array("test.numbers", "int").tolist() == [1, 2, 3]


def test_what_a_shard_repeats_may_be_the_same(shards: Shards) -> None:
    same = [pair for pair in metadata(SHAPE) if pair[0] in ("llama.block_count", "tokenizer.ggml.scores")]
    assert len(same) == 2
    with GGUFFile(shards.write({1: same})) as file:
        assert file.tensors


def test_a_merged_file_is_one_file(tmp_path: Path) -> None:
    """gguf-split --merge leaves a count of 0."""
    path = write_gguf(tmp_path / "m.gguf", [("split.count", "u16", 0)])
    with GGUFFile(path) as file:
        assert file.size == os.path.getsize(path)


# ---- no whole


def expect_error(path: str, file: str, field: str, *words: str) -> None:
    """An error about `field` of `file` that has the words in its text; and no file stays open."""
    before = open_files()
    with pytest.raises(ModelLoadError) as error:
        GGUFFile(path)
    text = str(error.value)
    assert text.startswith(f"{file}: {field}: expected ") and ", found " in text, text
    assert all(word in text for word in words), text
    assert open_files() == before


KEYS = {
    "number": (1, ("split.no", "u16", 2), ("1", "2")),
    "number missing": (2, ("split.no", "", 0), ("no such key",)),
    "count": (2, ("split.count", "u16", 4), ("3", "4")),
    "count missing": (1, ("split.count", "", 4), ("no such key",)),
    "total": (1, ("split.tensors.count", "i32", 7), ("7",)),
    "total of the first": (0, ("split.tensors.count", "", 0), ("no such key",)),
    "first's number": (0, ("split.no", "u16", 1), ("model-00001-of-00003.gguf", "1")),
    "negative total": (0, ("split.tensors.count", "i32", -1), ("-1",)),
    "a count without end": (0, ("split.count", "u16", 60000), ("512", "60000")),
    "text": (0, ("split.count", "str", "3"), ("integer",)),
    "other number of layers": (2, ("llama.block_count", "u32", 3), ("2", "3")),
    "other scores": (2, ("tokenizer.ggml.scores", "[f32]", [0.0]), ("array of 1 float32",)),
    "a key of its own": (1, ("llama.use_parallel_residual", "bool", True), ("True",)),
}


@pytest.mark.parametrize("case", KEYS)
def test_metadata_that_does_not_fit(shards: Shards, case: str) -> None:
    i, pair, words = KEYS[case]
    expect_error(shards.write({i: [pair]}), shards.path(i), pair[0], *words)


def test_total_of_all(shards: Shards) -> None:
    n = len(shards.tensors)
    wrong = {i: [("split.tensors.count", "i32", n + 1)] for i in range(N)}
    expect_error(shards.write(wrong), shards.path(0), "split.tensors.count", str(n), str(n + 1))


def test_a_tensor_twice(shards: Shards) -> None:
    double = shards.tensors[0]
    path = shards.write(tensors=lambda i, own: [*own, double] if i == 2 else own)
    expect_error(path, shards.path(2), f"tensor '{double[0]}'", "unique")


def test_a_file_is_missing(shards: Shards) -> None:
    path = shards.write()
    os.remove(shards.path(2))
    expect_error(path, path, "split.count", "3 files", "model-00003-of-00003.gguf")


def test_a_file_is_broken(shards: Shards) -> None:
    path = shards.write()
    os.truncate(shards.path(1), 100)
    expect_error(path, shards.path(1), "tensor_count")


def test_another_shard_than_the_first(shards: Shards) -> None:
    shards.write()
    expect_error(shards.path(1), shards.path(1), "split.no", "model-00001-of-00003.gguf", "1")


@pytest.mark.parametrize(
    "name", ["model.gguf", "model-00001-of-00004.gguf", "model-00002-of-00003.gguf", "-00001-of-00003.gguf"]
)
def test_a_name_that_does_not_fit(shards: Shards, name: str) -> None:
    path = str(shards.folder / name)
    os.rename(shards.write(), path)
    expect_error(path, path, "file name", "-00001-of-00003.gguf", name)


def test_a_shard_that_shrinks(shards: Shards) -> None:
    with GGUFFile(shards.write()) as file:
        last = max((t for t in file.tensors.values() if t.path == shards.path(2)), key=lambda t: t.offset)
        os.truncate(shards.path(2), last.offset)
        with pytest.raises(ModelLoadError, match="shrank") as error:
            file.read(last.name)
        assert str(error.value).startswith(shards.path(2))
