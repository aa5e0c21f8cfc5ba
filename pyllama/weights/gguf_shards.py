"""A model in several GGUF files, as llama.cpp's gguf-split and the gguf package write it.

Shard 2 of 3 is called NAME-00002-of-00003.gguf. Each shard is a GGUF of its own with some of the
tensors and three keys: split.no, counted from 0, split.count, and split.tensors.count, of all shards
together. The first has the model's metadata; what another one repeats of it must be the same.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final

from .gguf_header import load_error, show

if TYPE_CHECKING:
    from .gguf import GGUFFile

MAX_SHARDS: Final = 512  # files that are open together

_NAME: Final = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)
_ITS_OWN: Final = ("split.no", "general.alignment")


def shard_paths(path: str, no: int, count: int) -> list[str]:
    """The paths of all `count` shards, given that of the first, which says that it is shard `no`."""
    folder, name = os.path.split(path)
    match = _NAME.fullmatch(name)
    if not match or int(match[3]) != count:
        raise load_error(path, "file name", f"NAME-00001-of-{count:05}.gguf by its split.count", show(name))
    names = [f"{match[1]}-{i:05}-of-{count:05}.gguf" for i in range(1, count + 1)]
    if no != 0:
        raise load_error(path, "split.no", f"0, as in the first shard, {show(names[0])}", no)
    if name != names[0]:
        raise load_error(path, "file name", f"{show(names[0])} by its split.no", show(name))
    return [os.path.join(folder, name) for name in names]


def check_shard(first: GGUFFile, shard: GGUFFile, no: int) -> None:
    """Raises ModelLoadError unless `shard` is number `no` of those that `first` begins."""
    for key, expected in (
        ("split.no", no),
        ("split.count", first.get_int("split.count")),
        ("split.tensors.count", first.get_int("split.tensors.count")),
    ):
        found = shard.get_int(key)
        if found != expected:
            raise load_error(shard.path, key, expected, found)
    for key, value in shard.metadata.items():
        if key not in _ITS_OWN and key not in first.metadata:
            raise load_error(shard.path, key, f"no keys but those of {first.path}", show(value))
        if key not in _ITS_OWN and not _same(value, first.metadata[key]):
            expected_value = f"{show(first.metadata[key])}, as in {first.path}"
            raise load_error(shard.path, key, expected_value, show(value))
    for name in shard.tensors:
        if name in first.tensors:
            raise load_error(shard.path, f"tensor {show(name)}", "unique names", "it in an earlier shard")


def _same(a: Any, b: Any) -> bool:
    if hasattr(a, "dtype") and hasattr(b, "dtype"):
        return bool(a.dtype == b.dtype and a.tobytes() == b.tobytes())
    return type(a) is type(b) and bool(a == b)
