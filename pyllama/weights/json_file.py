"""JSON files of models, each value checked when it is asked for.

Capped in size and depth; keys twice in an object and numbers that are none are refused.
"""

from __future__ import annotations

import json
import os
import stat
from typing import Any, Final, TypeVar

from pyllama.errors import ModelLoadError
from pyllama.weights.gguf_header import load_error, show

MAX_BYTES: Final = 128 << 20  # several times the largest tokenizer.json known
MAX_DEPTH: Final = 64

T = TypeVar("T", bool, int, str, list[Any])
_NAMES: Final = {bool: "a bool", int: "an integer", str: "a string", list: "an array", dict: "an object"}


def read_file(path: str, most: int) -> bytes:
    """The bytes of a regular file of at most `most` bytes. Raises OSError and ModelLoadError."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # to open a FIFO would wait for its writer
        raise load_error(path, "file", "a regular file", stat.filemode(status.st_mode))
    if status.st_size > most:
        raise load_error(path, "file", f"<= {most} bytes", f"{status.st_size} bytes")
    with open(path, "rb") as file:
        return file.read(most)


def read_json(path: str, data: bytes | None = None) -> JsonObject:
    """The object that a JSON file is; `data` if its bytes are at hand."""
    data = read_file(path, MAX_BYTES) if data is None else data
    try:
        text = data.decode()
    except UnicodeDecodeError as e:
        found = f"byte 0x{data[e.start]:02x} at {e.start} ({e.reason})"
        raise load_error(path, "file", "UTF-8", found) from None
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
        _check_depth(value)
    except (ValueError, RecursionError) as e:
        raise load_error(path, "file", f"JSON of <= {MAX_DEPTH} levels", show(str(e))) from None
    if not isinstance(value, dict):
        raise load_error(path, "file", "a JSON object", show_json(value))
    return JsonObject(path, value)


class JsonObject:
    """An object of a JSON file. Null values count as absent."""

    def __init__(self, path: str, values: dict[str, Any], name: str = "") -> None:
        self.path, self.values, self.name = path, values, name

    def field(self, key: str) -> str:
        """The name of a value in error messages."""
        return f"{self.name}.{key}" if self.name else key

    def bad(self, key: str, expected: str) -> ModelLoadError:
        """The error about a value."""
        return load_error(self.path, self.field(key), expected, show_json(self.values.get(key)))

    def get(self, key: str, kind: type[T]) -> T | None:
        """A bool, int, str or list, if it is there."""
        value = self.values.get(key)
        if value is None or type(value) is kind:
            return value
        raise self.bad(key, _NAMES[kind])

    def object(self, key: str) -> JsonObject | None:
        """An object, if it is there."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.bad(key, _NAMES[dict])
        return JsonObject(self.path, value, self.field(key))

    def objects(self, key: str) -> list[JsonObject]:
        """The objects of an array; none if it is not there."""
        found = []
        for i, value in enumerate(self.get(key, list) or []):
            name = self.field(f"{key}[{i}]")
            if not isinstance(value, dict):
                raise load_error(self.path, name, _NAMES[dict], show_json(value))
            found.append(JsonObject(self.path, value, name))
        return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {show(twice)} twice in an object")
    return values


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant}, which is no JSON")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        nested = (v for v in level if isinstance(v, (dict, list)))
        level = [v for x in nested for v in (x.values() if isinstance(x, dict) else x)]
        if not level:
            return
    raise ValueError("more levels")


def show_json(value: Any) -> str:
    """A value, short enough for an error message."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    return "nothing" if value is None else show(value)
