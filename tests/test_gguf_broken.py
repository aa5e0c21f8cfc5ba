"""Every way in which a GGUF file can be broken: the error, and the field that it names."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from ggufwriter import F32_ID, Q8_0_ID, Raw, gguf_bytes, string, tiny_file, u32, u64, write_gguf

from pyllama.errors import ModelLoadError, UnsupportedModelError
from pyllama.weights import gguf_header
from pyllama.weights.gguf import GGUFFile

ARCH = ("general.architecture", "str", "llama")
W = ("w", [4], F32_ID, bytes(16))

# (name, bytes, error, field)
Case = tuple[str, bytes, type[ModelLoadError], str]
BAD, UNSUPPORTED = ModelLoadError, UnsupportedModelError
HUGE = [2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1]


def header_cases() -> Iterable[Case]:
    good = gguf_bytes([ARCH], [W])
    yield "empty", b"", BAD, "magic"
    yield "3 bytes", b"GGU", BAD, "magic"
    yield "pytorch zip", b"PK\x03\x04" + bytes(60), BAD, "magic"
    yield "old ggml", b"lmgg" + bytes(60), BAD, "magic"
    yield "git-lfs pointer", b"version https://git-lfs.github.com/spec/v1\n", BAD, "magic"
    yield "magic only", b"GGUF", BAD, "version"
    yield "big-endian", b"GGUF" + struct.pack(">I", 3) + good[8:], UNSUPPORTED, "version"
    for version in (0, 1, 4, 2**32 - 1):
        yield f"v{version}", gguf_bytes([ARCH], [W], version), UNSUPPORTED, "version"
    yield "no tensor count", good[:8], BAD, "tensor_count"
    yield "no kv count", gguf_bytes([])[:16], BAD, "metadata_kv_count"
    for n in HUGE:
        yield f"{n} tensors", gguf_bytes([ARCH], [W], n_tensors=n), BAD, "tensor_count"
        yield f"{n} pairs", gguf_bytes([ARCH], [W], n_kv=n), BAD, "metadata_kv_count"
    yield "70 pairs", gguf_bytes([ARCH], [W], n_kv=70), BAD, "metadata_kv_count"
    yield "70 tensors", gguf_bytes([ARCH], [W], n_tensors=70), BAD, "tensor_count"


def metadata_cases() -> Iterable[Case]:
    def case(name: str, field: str, *pairs: Any, error: type[ModelLoadError] = BAD) -> Case:
        return name, gguf_bytes([*pairs, ("end", "[u8]", [0] * 64)]), error, field

    yield case("duplicate key", "metadata[1] key", ("a", "u32", 1), ("a", "u32", 1))
    yield case("empty key", "metadata[0] key length", ("", "u32", 1))
    yield case("long key", "metadata[0] key length", ("k" * 65536, "u32", 1))
    yield case("key not utf-8", "metadata[0] key", (b"a\xff", "u32", 1))
    yield case("key with a surrogate", "metadata[0] key", (b"\xed\xa0\x80", "u32", 1))
    yield case("text not utf-8", "a", ("a", "str", b"x\xc3"))
    yield case("token not utf-8", "a[1]", ("a", "[str]", ["x", b"\x80", "y"]))
    yield case("token overlong", "a[0]", ("a", "[str]", [b"\xc0\x80"]))
    for kind in (13, 255, 2**31, 2**32 - 1):
        yield case(f"value type {kind}", "a value type", ("a", kind, u32(1)), error=UNSUPPORTED)
        array = ("a", 9, Raw(u32(kind) + u64(1) + u64(0)))
        yield case(f"element type {kind}", "a element type", array, error=UNSUPPORTED)
    nested = ("a", 9, Raw(u32(9) + u64(1) + u32(4) + u64(1) + u32(7)))
    yield case("array in array", "a", nested, error=UNSUPPORTED)
    yield case("bool of 2", "a", ("a", "bool", Raw(b"\2")))
    yield case("bools with 255", "a[2]", ("a", "[bool]", Raw(u32(7) + u64(3) + b"\0\1\xff")))
    for n in HUGE:
        yield case(f"text of {n}", "a length", ("a", "str", Raw(u64(n) + b"abc")))
        yield case(f"key of {n}", "metadata[0] key length", (Raw(u64(n) + b"abc"), "u32", 1))
        for kind in (0, 7, 8, 12):
            array = ("a", 9, Raw(u32(kind) + u64(n) + b"abc"))
            yield case(f"array of {n} type {kind}", "a length", array)
        tokens = ("a", 9, Raw(u32(8) + u64(3) + string("x") + u64(n) + b"abc"))
        yield case(f"token of {n}", "a[1] length", tokens)
    for value in (0, 1, 4, 12, 48, 2**21, 2**31, 2**32 - 1):
        pair = ("general.alignment", "u32", value)
        yield case(f"alignment {value}", "general.alignment", pair)
    yield case("alignment text", "general.alignment", ("general.alignment", "str", "32"))
    shard = ("split.count", "u16", 2)
    yield case("one shard of two", "split.no", shard)


def tensor_cases() -> Iterable[Case]:
    def case(name: str, field: str, *tensors: Any, error: type[ModelLoadError] = BAD) -> Case:
        return name, gguf_bytes([ARCH], tensors), error, field

    def dims(*sizes: int) -> Raw:
        return Raw(u32(len(sizes)) + b"".join(map(u64, sizes)))

    yield case("empty name", "tensor[0] name length", ("", [4], F32_ID, bytes(16)))
    yield case("long name", "tensor[1] name length", W, ("n" * 257, [4], F32_ID, bytes(16)))
    yield case("name not utf-8", "tensor[1] name", W, (b"\xff", [4], F32_ID, bytes(16)))
    yield case("duplicate name", "tensor[1] name", W, W)
    for n in HUGE:
        yield case(f"name of {n}", "tensor[0] name length", (u64(n), [4], F32_ID, bytes(16)))
        yield case(f"dim {n}", "tensor 'w' ", ("w", [n, 4], F32_ID, bytes(16)))
        yield case(f"offset {n}", "tensor 'w' offset", ("w", [4], F32_ID, bytes(16), n))
    for n in (0, 5, 2**31, 2**32 - 1):
        sizes = Raw(u32(n) + b"".join([u64(1)] * 5))
        yield case(f"{n} dims", "tensor 'w' n_dims", ("w", sizes, F32_ID, bytes(64)))
    yield case("dim 0", "tensor 'w' dims[1]", ("w", [4, 0], F32_ID, bytes(16)))
    yield case("product 2**64", "tensor 'w' dims", ("w", [2**32, 2**32], F32_ID, bytes(16)))
    wraps = dims(2**16, 2**16, 2**16, 2**16)
    yield case("product wraps to 0", "tensor 'w' dims", ("w", wraps, F32_ID, bytes(16)))
    yield case("bytes wrap", "tensor 'w' dims", ("w", [2**62], F32_ID, bytes(16)))
    yield case("half a block", "tensor 'w' dims[0]", ("w", [48, 2], Q8_0_ID, bytes(102)))
    for kind in (5, 31, 43, 2**31, 2**32 - 1):
        tensor = ("w", [4], kind, bytes(16))
        yield case(f"type {kind}", "tensor 'w' type", tensor, error=UNSUPPORTED)
    yield case("offset not aligned", "tensor 'w' offset", ("w", [4], F32_ID, bytes(64), 8))
    yield case("past the end", "tensor 'w' offset", ("w", [9], F32_ID, bytes(32)))
    yield case("offset past the end", "tensor 'w' offset", ("w", [4], F32_ID, bytes(16), 32))
    yield case("same place", "tensor 'v' offset", W, ("v", [4], F32_ID, bytes(16), 0))
    big = ("big", [16], F32_ID, bytes(64))
    yield case("overlap", "tensor 'v' offset", big, ("v", [8], F32_ID, bytes(32), 32))


CASES = [*header_cases(), *metadata_cases(), *tensor_cases()]


@pytest.mark.parametrize(("data", "error", "field"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_broken_file(tmp_path: Path, data: bytes, error: type[ModelLoadError], field: str) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(data)
    fds = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with pytest.raises(ModelLoadError) as e:
        GGUFFile(path)
    assert type(e.value) is error
    assert str(e.value).startswith(f"{path}: {field}"), str(e.value)
    if not field.endswith(" "):
        assert str(e.value).startswith(f"{path}: {field}: expected "), str(e.value)
    assert ", found " in str(e.value) and len(str(e.value)) < 1000
    assert not fds or len(os.listdir("/proc/self/fd")) == fds


def test_truncated_anywhere(tmp_path: Path) -> None:
    data, path = tiny_file(), tmp_path / "m.gguf"
    for n in range(len(data)):
        path.write_bytes(data[:n])
        with pytest.raises(ModelLoadError, match=r"m\.gguf: .*: expected .*, found "):
            GGUFFile(path)


def test_hostile_names_in_messages(tmp_path: Path) -> None:
    for name in ("\x1b[2J\n", "a\0b", "\u202e", "n" * 60000):
        path = write_gguf(tmp_path / "m.gguf", [(name, 13, u32(1))])
        with pytest.raises(ModelLoadError) as e:
            GGUFFile(path)
        assert str(e.value).isprintable() and len(str(e.value)) < 600
        assert "value type: expected 0..12, found 13" in str(e.value)


def test_memory_is_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts that promise gigabytes must not allocate them, even in a file that is sparse."""
    monkeypatch.setattr(gguf_header, "MAX_HEADER", 1 << 20)
    path = write_gguf(tmp_path / "m.gguf", [("a", 9, Raw(u32(12) + u64(1 << 20)))])
    os.truncate(path, 1 << 40)
    with pytest.raises(ModelLoadError, match="a: expected a header of at most"):
        GGUFFile(path)
    for value in (("a", "str", Raw(u64(1 << 34))), ("a", 9, Raw(u32(8) + u64(1 << 23)))):
        path = write_gguf(tmp_path / "m.gguf", [value])
        os.truncate(path, 1 << 40)
        with pytest.raises(ModelLoadError, match="a length: expected at most"):
            GGUFFile(path)
