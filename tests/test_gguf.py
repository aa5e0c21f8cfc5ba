"""pyllama.weights.gguf against hand-made files, broken files and the `gguf` package."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from ggufwriter import F32_ID, Q8_0_ID, gguf_bytes, tiny_file, write_gguf
from hypothesis import given, settings
from hypothesis import strategies as st
from published import SHARED, needs_shared

from pyllama.errors import ModelLoadError
from pyllama.weights import gguf_header
from pyllama.weights.gguf import GGML_TYPES, GGUFFile
from pyllama.weights.source import TensorInfo

Metadata = list[tuple[Any, Any, Any]]
ARCH = ("general.architecture", "str", "llama")
W = ("w", [4], F32_ID, bytes(16))


def metadata_of(path: Path, data: bytes) -> dict[str, Any]:
    path.write_bytes(data)
    with GGUFFile(path) as f:
        return f.metadata


def same(a: Any, b: Any) -> bool:
    """Equality where NaN equals NaN and arrays are compared by value."""
    if isinstance(a, float) and math.isnan(a):
        return math.isnan(b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, np.asarray(b, dtype=a.dtype), equal_nan=a.dtype.kind == "f")
    return bool(a == b)


# ---- valid files


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [8, 32, 4096])
def test_hand_made_file(tmp_path: Path, version: int, alignment: int) -> None:
    q8 = os.urandom(2 * 34)
    tensors = [("a", [3], F32_ID, bytes(12)), ("b", [32, 2, 1, 1], Q8_0_ID, q8)]
    path = write_gguf(tmp_path / "m.gguf", [ARCH], tensors, version, alignment)
    with GGUFFile(path) as f:
        assert (f.version, f.alignment, f.size) == (version, alignment, os.path.getsize(path))
        assert f.path == path and f.metadata["general.architecture"] == "llama"
        assert list(f.tensors) == ["a", "b"]
        a, b = f.tensors.values()
        assert a == TensorInfo("a", "F32", (3,), a.offset, 12)
        assert b == TensorInfo("b", "Q8_0", (1, 1, 2, 32), b.offset, 68)
        assert a.offset % alignment == b.offset % alignment == 0
        assert f.read("a") == bytes(12) and f.read("b") == q8
        assert os.pread(b.fd, 68, b.offset) == q8


def test_every_value_type(tmp_path: Path) -> None:
    found = metadata_of(tmp_path / "m.gguf", tiny_file())
    assert found["test.u8"] == 200 and found["test.i8"] == -100
    assert found["test.u16"] == 60000 and found["test.i16"] == -30000
    assert found["test.u64"] == 2**64 - 1 and found["test.i64"] == -(2**63)
    assert found["test.i32"] == -(2**31) and found["test.f64"] == 0.1
    assert found["test.bool"] is True and found["test.text"] == "grüße, 世界 \U0001f600"
    assert found["tokenizer.ggml.tokens"] == ["<s>", "", "a", "▁b", "c" * 300]
    scores = found["tokenizer.ggml.scores"]
    assert scores.dtype == np.float32 and scores.tolist() == [0.0, -1.0, -2.5, -3.0, -4.0]
    assert found["test.flags"].dtype == bool and found["test.flags"].tolist() == [True, False, True]
    assert found["test.empty"].dtype == np.uint64 and len(found["test.empty"]) == 0
    assert not scores.flags.writeable


def test_no_tensors_and_no_metadata(tmp_path: Path) -> None:
    with GGUFFile(write_gguf(tmp_path / "m.gguf")) as f:
        assert f.metadata == {} and f.tensors == {} and f.alignment == 32


def test_types_are_those_of_the_gguf_package() -> None:
    for kind in gguf.GGMLQuantizationType:
        assert GGML_TYPES[int(kind)] == (kind.name, *gguf.GGML_QUANT_SIZES[kind])


def assert_like_the_gguf_package(path: Path) -> None:
    theirs = gguf.GGUFReader(path)
    with GGUFFile(path) as ours:
        fields = {k: v for k, v in theirs.fields.items() if not k.startswith("GGUF.")}
        assert list(fields) == list(ours.metadata)
        for key, field in fields.items():
            assert same(ours.metadata[key], field.contents()), key
        assert ours.alignment == theirs.alignment
        assert [t.name for t in theirs.tensors] == list(ours.tensors)
        for t, info in zip(theirs.tensors, ours.tensors.values(), strict=True):
            assert info.shape == tuple(map(int, reversed(t.shape)))
            assert (info.type, info.offset, info.nbytes) == (
                t.tensor_type.name,
                t.data_offset,
                t.n_bytes,
            )
            assert ours.read(info.name) == t.data.tobytes()


def test_file_written_by_the_gguf_package(tmp_path: Path) -> None:
    w = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    w.add_block_count(3)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_token_list(["<s>", "é", "\n"])
    w.add_token_scores([0.0, -1.0, -2.0])
    w.add_add_bos_token(True)
    w.add_custom_alignment(64)
    rng = np.random.default_rng(1)
    for i, shape in enumerate([(7,), (3, 64), (2, 3, 32)]):
        w.add_tensor(f"t{i}", rng.standard_normal(shape, dtype=np.float32))
    w.add_tensor("q", rng.integers(0, 256, (5, 68), dtype=np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    assert_like_the_gguf_package(tmp_path / "m.gguf")


def test_our_files_are_read_by_the_gguf_package(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(tiny_file().replace(b"test.empty", b"test.other"))
    data = gguf_bytes([ARCH, ("a", "[i16]", [1, -2])], [W, ("x", [32], Q8_0_ID, bytes(34))])
    path.write_bytes(data)
    assert_like_the_gguf_package(path)


@needs_shared
@pytest.mark.parametrize(
    "name",
    [
        "stories260k/stories260k-f32.gguf",
        "vocab/ggml-vocab-llama-spm.gguf",
        "vocab/ggml-vocab-llama-bpe.gguf",
        "vocab/ggml-vocab-qwen2.gguf",
        "vocab/ggml-vocab-phi-3.gguf",
    ],
)
def test_real_files(name: str) -> None:
    assert_like_the_gguf_package(SHARED / name)


numbers = st.one_of(
    st.tuples(st.just("u32"), st.integers(0, 2**32 - 1)),
    st.tuples(st.just("i64"), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just("f64"), st.floats()),
    st.tuples(st.just("bool"), st.booleans()),
    st.tuples(st.just("str"), st.text()),
    st.tuples(st.just("[str]"), st.lists(st.text())),
    st.tuples(st.just("[u16]"), st.lists(st.integers(0, 65535))),
    st.tuples(st.just("[f32]"), st.lists(st.floats(width=32))),
    st.tuples(st.just("[bool]"), st.lists(st.booleans())),
)


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1), numbers), st.sampled_from([1, 7, 64 << 10]))
def test_what_is_written_is_read(values: dict[str, Any], chunk: int) -> None:
    data = gguf_bytes([(f"k.{key}", *value) for key, value in values.items()])
    with tempfile.NamedTemporaryFile() as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf_header, "FIRST_CHUNK", chunk)
        file.write(data)
        file.flush()
        with GGUFFile(file.name) as f:
            assert list(f.metadata) == [f"k.{key}" for key in values]
            for key, (_, value) in values.items():
                assert same(f.metadata[f"k.{key}"], value)


def test_strings_that_cross_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["é" * (i % 50) for i in range(3000)]
    data = gguf_bytes([("a", "[str]", words), ("b", "[u32]", range(9999)), ("c", "str", "end")])
    for chunk in (1, 100, 4096):
        monkeypatch.setattr(gguf_header, "FIRST_CHUNK", chunk)
        monkeypatch.setattr(gguf_header, "LAST_CHUNK", chunk)
        found = metadata_of(tmp_path / "m.gguf", data)
        assert found["a"] == words and found["c"] == "end"
        assert found["b"].tolist() == list(range(9999))


def test_tensor_data_is_not_read(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", [], [("w", [1 << 40], F32_ID, b"")])
    os.truncate(path, 5 << 40)  # sparse
    with GGUFFile(path) as f:
        assert f.tensors["w"].nbytes == 4 << 40


# ---- paths, closing, reading


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.gguf"):
        GGUFFile(tmp_path / "none.gguf")
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        GGUFFile(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ModelLoadError, match="a regular file"):
        GGUFFile(tmp_path / "fifo")


def test_close(tmp_path: Path) -> None:
    f = GGUFFile(write_gguf(tmp_path / "m.gguf", [ARCH], [W]))
    fd = f.tensor("w").fd
    f.close()
    f.close()
    with pytest.raises(OSError, match="Errno 9"):
        os.fstat(fd)
    with pytest.raises(ValueError, match="closed"):
        f.read("w")
    assert f.metadata["general.architecture"] == "llama"


def test_read_of_missing_and_shrunk(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", [ARCH], [W])
    with GGUFFile(path) as f:
        with pytest.raises(ModelLoadError, match="tensor 'v': expected"):
            f.read("v")
        os.truncate(path, f.size - 20)
        with pytest.raises(ModelLoadError, match="tensor 'w' data: expected 16 bytes, found 12"):
            f.read("w")


def test_header_that_shrinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(tiny_file())
    monkeypatch.setattr(gguf_header, "pread", lambda fd, n, offset: os.pread(fd, n, offset)[:100])
    with pytest.raises(ModelLoadError, match="the file shrank"):
        GGUFFile(path)


# ---- getters


@pytest.fixture
def tiny(tmp_path: Path) -> Iterable[GGUFFile]:
    more: Metadata = [("nan", "f32", math.nan), ("inf", "f64", -math.inf), ("one", "u8", 1)]
    more += [("half", "f32", 0.5), ("yes", "bool", True), ("text", "str", "t")]
    more += [("words", "[str]", ["a", "b"]), ("ints", "[i8]", [1, -1])]
    more += [("floats", "[f64]", [1.0, 2.0]), ("nans", "[f32]", [0.0, math.nan])]
    more += [("flags", "[bool]", [True])]
    with GGUFFile(write_gguf(tmp_path / "m.gguf", more)) as f:
        yield f


def test_getters(tiny: GGUFFile) -> None:
    assert tiny.get_int("one", min=1, max=1) == 1
    assert tiny.get_float("half", min=0.5, max=0.5) == 0.5
    assert tiny.get_str("text") == "t" and tiny.get_bool("yes") is True
    assert tiny.get_array("words", "str", length=2) == ["a", "b"]
    assert tiny.get_array("ints", "int").tolist() == [1, -1]
    assert tiny.get_array("floats", "float", length=2).tolist() == [1.0, 2.0]
    assert tiny.get_array("flags", "bool").tolist() == [True]
    assert tiny.get_int("none", None) is None and tiny.get_int("none", -5, min=0) == -5
    assert tiny.get_float("none", 1.0) == 1.0 and tiny.get_str("none", "d") == "d"
    assert tiny.get_bool("none", False) is False and tiny.get_array("none", "str", None) is None


@pytest.mark.parametrize(
    ("getter", "args", "limits", "message"),
    [
        ("get_int", ["none"], {"min": 1}, "none: expected an integer >= 1, found no such key"),
        ("get_int", ["half"], {}, "half: expected an integer, found 0.5"),
        ("get_int", ["yes", 3], {}, "yes: expected an integer, found True"),
        ("get_int", ["one"], {"min": 2}, "one: expected an integer >= 2, found 1"),
        (
            "get_int",
            ["one"],
            {"min": -1, "max": 0},
            "one: expected an integer >= -1 and <= 0, found 1",
        ),
        ("get_int", ["ints"], {}, "ints: expected an integer, found an array of 2 int8"),
        ("get_float", ["one"], {}, "one: expected a finite float, found 1"),
        ("get_float", ["nan"], {}, "nan: expected a finite float, found nan"),
        ("get_float", ["inf"], {}, "inf: expected a finite float, found -inf"),
        ("get_float", ["half"], {"max": 0.4}, "half: expected a finite float <= 0.4, found 0.5"),
        ("get_str", ["one"], {}, "one: expected a string, found 1"),
        ("get_str", ["words"], {}, "words: expected a string, found an array of 2 str"),
        ("get_bool", ["one"], {}, "one: expected a bool, found 1"),
        (
            "get_array",
            ["words", "int"],
            {},
            "words: expected an array of int, found an array of 2 str",
        ),
        (
            "get_array",
            ["ints", "str"],
            {},
            "ints: expected an array of str, found an array of 2 int8",
        ),
        (
            "get_array",
            ["ints", "float"],
            {},
            "expected an array of float, found an array of 2 int8",
        ),
        ("get_array", ["flags", "int"], {}, "expected an array of int, found an array of 1 bool"),
        ("get_array", ["one", "int"], {}, "one: expected an array of int, found 1"),
        ("get_array", ["nans", "float"], {}, "nans[1]: expected a finite float, found nan"),
        (
            "get_array",
            ["ints", "int"],
            {"length": 3},
            "expected an array of 3 int, found an array of 2",
        ),
        ("get_array", ["none", "str"], {}, "none: expected an array of str, found no such key"),
    ],
)
def test_getter_errors(
    tiny: GGUFFile, getter: str, args: list[Any], limits: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelLoadError) as e:
        getattr(tiny, getter)(*args, **limits)
    assert message in str(e.value) and str(e.value).startswith(f"{tiny.path}: ")
    assert type(e.value) is ModelLoadError


def test_nothing_is_mapped(tmp_path: Path) -> None:
    """A file that is cut while it is open must not kill the process."""
    path = write_gguf(tmp_path / "m.gguf", [ARCH], [("w", [1 << 20], F32_ID, bytes(4 << 20))])
    code = (
        "import os, sys; from pyllama.weights.gguf import GGUFFile\n"
        "f = GGUFFile(sys.argv[1]); os.truncate(sys.argv[1], 0)\n"
        "try: f.read('w')\n"
        "except Exception as e: print(type(e).__name__)"
    )
    out = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert out.stdout == "ModelLoadError\n", out.stderr
