"""The primitive fields of a GGUF header, read forward in chunks, each checked before it is used.

The layout is that of the GGUF specification (ggml, docs/gguf.md). A string is a u64 length in
bytes and UTF-8; an array is element type u32, length u64, elements. No length is trusted before
it is compared with the bytes that are left: nothing is allocated that the file cannot fill.
"""

from __future__ import annotations

import os
import struct
from typing import Any, Final

from pyllama.errors import ModelLoadError, UnsupportedModelError

# Caps: an order of magnitude above any real model, small enough to bound time and memory.
MAX_HEADER: Final = 128 << 20  # bytes up to the end of the tensor infos
MAX_STRING: Final = 64 << 20  # bytes
MAX_ARRAY: Final = 1 << 22  # elements
MAX_KV: Final = 1 << 16
MAX_KEY: Final = 65535  # bytes, by the specification
MIN_KV_BYTES: Final = 8 + 1 + 4 + 1  # the shortest key, its type, the shortest value

FIRST_CHUNK: Final = 64 << 10  # bytes: a model's header without its vocabulary
LAST_CHUNK: Final = 4 << 20

# Metadata value types. These struct codes are numpy dtype codes as well.
NUMBERS: Final[dict[int, str]] = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    10: "<Q",
    11: "<q",
    12: "<d",
}
BOOL, STRING, ARRAY = 7, 8, 9
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


def show(value: Any) -> str:
    """A metadata value or a name, short enough for an error message."""
    if isinstance(value, list):
        return f"an array of {len(value)} str"
    if hasattr(value, "dtype") and value.ndim:
        return f"an array of {len(value)} {value.dtype.name}"
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 120 else f"{text[:80]}...{text[-20:]}"


def load_error(
    path: str, field: str, expected: Any, found: Any, cls: type[ModelLoadError] = ModelLoadError
) -> ModelLoadError:
    """The error `path: field: expected .., found ..`; a hostile field name is made printable."""
    if len(field) > 300:
        field = f"{field[:200]}...{field[-60:]}"
    if not field.isprintable():
        field = ascii(field)[1:-1]
    return cls(f"{path}: {field}: expected {expected}, found {found}")


def pread(fd: int, n: int, offset: int) -> bytes:
    """n bytes at `offset`, fewer only where the file ends."""
    parts: list[bytes] = []
    while n > 0:
        part = os.pread(fd, min(n, 1 << 30), offset)  # macOS refuses 2 GiB and more
        if not part:
            break
        parts.append(part)
        n -= len(part)
        offset += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _whole_strings(buf: bytes, pos: int, n: int, out: list[str]) -> int:
    """Append strings from buf[pos] on until `out` has n or the next one is not whole; the new pos.

    The only loop over a vocabulary (128k tokens and 280k merges in Llama 3), hence its own.
    """
    end, append, length_at = len(buf), out.append, _U64.unpack_from
    for _ in range(n - len(out)):
        start = pos + 8
        if start > end:
            break
        stop = start + length_at(buf, pos)[0]
        if stop > end:
            break
        append(buf[start:stop].decode())
        pos = stop
    return pos


class Header:
    """A forward reader over the header of an open file of `size` bytes.

    Every method takes the name of the field that it reads, for its ModelLoadError.
    """

    def __init__(self, path: str, fd: int, size: int) -> None:
        self.path, self.fd, self.size = path, fd, size
        self.buf = b""  # one chunk of the file
        self.base = 0  # file offset of buf[0]
        self.pos = 0  # next unread byte of buf
        self.chunk = FIRST_CHUNK

    def tell(self) -> int:
        """File offset of the next unread byte."""
        return self.base + self.pos

    def bad(
        self, field: str, expected: Any, found: Any, cls: type[ModelLoadError] = ModelLoadError
    ) -> ModelLoadError:
        """The error to raise for `field`."""
        return load_error(self.path, field, expected, found, cls)

    def take(self, n: int, field: str) -> bytes:
        """The next n bytes."""
        if self.pos + n > len(self.buf):
            self._refill(n, field)
        self.pos += n
        return self.buf[self.pos - n : self.pos]

    def _refill(self, n: int, field: str) -> None:
        start, rest = self.tell(), self.buf[self.pos :]
        if n > self.size - start:
            raise self.bad(field, f"{n} bytes", f"the end of the file after {self.size - start}")
        if start + n > MAX_HEADER:
            raise self.bad(field, f"a header of at most {MAX_HEADER} bytes", start + n)
        more = pread(self.fd, max(self.chunk, n - len(rest)), start + len(rest))
        self.buf, self.base, self.pos = rest + more, start, 0
        self.chunk = min(2 * self.chunk, LAST_CHUNK)
        if len(self.buf) < n:
            raise self.bad(field, f"{n} bytes", f"{len(self.buf)}: the file shrank")

    def u32(self, field: str) -> int:
        """A uint32."""
        return int(_U32.unpack(self.take(4, field))[0])

    def u64(self, field: str) -> int:
        """A uint64."""
        return int(_U64.unpack(self.take(8, field))[0])

    def count(self, field: str, cap: int, unit: int) -> int:
        """A uint64 that counts things of at least `unit` bytes, all of which fit into the file."""
        n, left = self.u64(field), self.size - self.tell()
        if n > cap:
            raise self.bad(field, f"at most {cap}", n)
        if n * unit > left:
            raise self.bad(field, f"at most {left // unit}, for {left} bytes are left", n)
        return n

    def string(self, field: str, least: int = 0, most: int = MAX_STRING) -> str:
        """A string of least..most bytes."""
        n = self.count(f"{field} length", most, 1)
        if n < least:
            raise self.bad(f"{field} length", f"at least {least}", n)
        raw = self.take(n, field)
        try:
            return raw.decode()
        except UnicodeDecodeError as e:
            raise self._bad_utf8(field, e) from None

    def value(self, kind: int, field: str) -> Any:
        """A metadata value: int, float, bool, str or what `array` returns."""
        if kind in NUMBERS:
            code = NUMBERS[kind]
            return struct.unpack(code, self.take(struct.calcsize(code), field))[0]
        if kind == BOOL:
            byte = self.take(1, field)[0]
            if byte > 1:
                raise self.bad(field, "a bool of 0 or 1", byte)
            return byte == 1
        if kind == STRING:
            return self.string(field)
        if kind == ARRAY:
            return self.array(field)
        raise self.bad(f"{field} value type", "0..12", kind, UnsupportedModelError)

    def array(self, field: str) -> Any:
        """list[str], or a read-only numpy array [n] of the element type (bool for bool)."""
        kind = self.u32(f"{field} element type")
        if kind == ARRAY:
            raise self.bad(field, "no arrays in an array", "some", UnsupportedModelError)
        if kind not in NUMBERS and kind not in (BOOL, STRING):
            raise self.bad(f"{field} element type", "0..12", kind, UnsupportedModelError)
        code = NUMBERS.get(kind, "<B")
        unit = 8 if kind == STRING else struct.calcsize(code)
        n = self.count(f"{field} length", MAX_ARRAY, unit)
        if kind == STRING:
            return self._strings(n, field)
        import numpy as np  # late: its import would be most of pyllama's start-up time

        numbers = np.frombuffer(self.take(n * unit, field), dtype=np.dtype(code))
        if kind != BOOL:
            return numbers
        if n and numbers.max() > 1:
            first = int((numbers > 1).argmax())
            raise self.bad(f"{field}[{first}]", "a bool of 0 or 1", int(numbers[first]))
        return numbers.view(np.bool_)

    def _strings(self, n: int, field: str) -> list[str]:
        out: list[str] = []
        while True:
            try:
                self.pos = _whole_strings(self.buf, self.pos, n, out)
            except UnicodeDecodeError as e:
                raise self._bad_utf8(f"{field}[{len(out)}]", e) from None
            if len(out) == n:
                return out
            out.append(self.string(f"{field}[{len(out)}]"))  # it crosses the end of the chunk

    def _bad_utf8(self, field: str, e: UnicodeDecodeError) -> ModelLoadError:
        found = f"byte 0x{e.object[e.start]:02x} at {e.start} ({e.reason})"
        return self.bad(field, "UTF-8", found)


def read_version(head: Header) -> int:
    """Magic and version: 2 or 3, which have one layout.

    Raises UnsupportedModelError for v1, for later versions and for big-endian files.
    """
    magic = head.take(4, "magic")
    if magic != b"GGUF":
        raise head.bad("magic", b"GGUF", magic)
    version = head.u32("version")
    if version and version & 0xFFFF == 0:  # no version is that large: its bytes are swapped
        raise head.bad("version", "a little-endian file", "a big-endian one", UnsupportedModelError)
    if version not in (2, 3):
        raise head.bad("version", "2 or 3", version, UnsupportedModelError)
    return version


def read_metadata(head: Header, n: int) -> dict[str, Any]:
    """n pairs of key, value type, value, in file order."""
    metadata: dict[str, Any] = {}
    for i in range(n):
        field = f"metadata[{i}] key"
        key = head.string(field, 1, MAX_KEY)
        if key in metadata:
            raise head.bad(field, "unique keys", f"{show(key)} again")
        kind = head.u32(f"{key} value type")
        metadata[key] = head.value(kind, key)
    return metadata
