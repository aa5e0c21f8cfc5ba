"""Which files of a repo are a model: GGUF files by their quantization, or a folder of safetensors.

Names alone are judged here, whether a hub lists them or a cache holds them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .errors import HubError

# What is taken if nobody names a quantization: the first of these that is there.
PREFERRED = ("Q4_K_M", "Q4_K_S", "Q5_K_M", "Q4_0", "Q5_K_S", "Q6_K", "Q8_0", "BF16", "F16", "F32")
QUANTIZE = ("q8_0", "q4_0")  # what safetensors may become while they are loaded

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model")
BESIDES = (  # of a folder, where they are there
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)

MAX_INDEX = 64 << 20  # bytes
SHOWN = 24  # names in an error

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})")
_QUANT = re.compile(r"(?:^|[-._])((?:UD-)?(?:I?Q\d|TQ\d|MXFP4|BF16|FP?16|FP?32)\w*)(?=$|[-.])", re.IGNORECASE)


@dataclass(frozen=True)
class GGUFModel:
    """A model of one file, or of several shards. quant: as its name tells it, in capitals."""

    files: tuple[str, ...]
    n_files: int  # that there should be
    quant: str | None

    @property
    def is_whole(self) -> bool:
        """Whether no shard is missing."""
        return len(self.files) == self.n_files

    @property
    def stem(self) -> str:
        """The name without folder, number of the shard and suffix."""
        return _split(self.files[0])[0].rpartition("/")[2]

    def answers_to(self, tag: str) -> bool:
        """Whether `tag` is a part of the name between two marks, such as Q4_K_XL in a-UD-Q4_K_XL.gguf."""
        return bool(re.search(rf"(?:^|[-._]){re.escape(tag)}(?:$|[-.])", self.stem, re.IGNORECASE))


@dataclass(frozen=True)
class Choice:
    """Files in the order of download; `main` is what a loader opens, "" being the folder itself."""

    files: tuple[str, ...]
    main: str
    quant: str | None = None  # of a GGUF file
    quantize: str | None = None  # wished for safetensors


def _split(name: str) -> tuple[str, int, int]:
    """Path without suffix, number and count of a shard; 1 of 1 for a whole file."""
    path = name[: -len(".gguf")]
    match = _SHARD.fullmatch(path)
    return (match[1], int(match[2]), int(match[3])) if match else (path, 1, 1)


def is_safe(name: str) -> bool:
    """Whether a name that a hub gave stays below the folder where it is put."""
    return name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(name.split("/"))


def gguf_models(names: Iterable[str]) -> list[GGUFModel]:
    """The models among `names`, by name. Projectors and importance matrices are none."""
    shards: dict[tuple[str, int], dict[int, str]] = {}
    for name in names:
        last = PurePosixPath(name).name.lower()
        if last.endswith(".gguf") and "mmproj" not in last and "imatrix" not in last:
            path, i, n = _split(name)
            shards.setdefault((path, n), {})[i] = name
    models = []
    for (path, n), found in sorted(shards.items()):
        quants = _QUANT.findall(path.rpartition("/")[2])
        files = tuple(found[i] for i in range(1, n + 1) if i in found)
        if files:
            models.append(GGUFModel(files, n, quants[-1].upper() if quants else None))
    return models


def choose(names: Iterable[str], tag: str | None, read: Callable[[str], Path], where: str) -> Choice:
    """The files that `tag` means. read: the local path of a listed file. Raises HubError."""
    safe = sorted(filter(is_safe, names))
    if models := gguf_models(safe):
        return _choose_gguf(models, tag, where)
    quantize = None if tag is None else tag.lower()
    if quantize is not None and quantize not in QUANTIZE:
        raise HubError(f"{where}: quant: expected {' or '.join(QUANTIZE)} for safetensors, found {tag!r}")
    return Choice(choose_folder(safe, read, where), "", quantize=quantize)


def _choose_gguf(models: list[GGUFModel], tag: str | None, where: str) -> Choice:
    quants = [m.quant for m in models]
    wanted = tag or next((q for q in PREFERRED if q in quants), None)
    if wanted is None:
        found = models
    else:
        found = [m for m in models if wanted.upper() == m.quant or wanted in (m.files[0], f"{m.stem}.gguf")]
        found = found or [m for m in models if m.answers_to(wanted)]
    if len(found) != 1:
        shown = [m.quant or m.files[0] for m in models] if not found else [m.files[0] for m in found]
        which = "one of" if not found else "one file of several:"
        given = "none" if tag is None else repr(tag)
        raise HubError(f"{where}: quant: expected {which} {_listing(shown)}, found {given}")
    model = found[0]
    if not model.is_whole:
        what = f"expected {model.n_files} shards, found {len(model.files)}"
        raise HubError(f"{where}: {model.files[0]}: {what}")
    return Choice(model.files, model.files[0], quant=model.quant)


def choose_folder(names: Iterable[str], read: Callable[[str], Path], where: str) -> tuple[str, ...]:
    """Config, tokenizer, then weights: a folder that has its weights has everything. Raises HubError."""
    there = set(names)
    if CONFIG not in there or not {WEIGHTS, INDEX} & there:
        raise HubError(
            f"{where}: expected *.gguf, or {CONFIG} with {WEIGHTS}, found {_listing(sorted(there))}"
        )
    if not set(TOKENIZERS) & there:
        raise HubError(f"{where}: expected {' or '.join(TOKENIZERS)}, found {_listing(sorted(there))}")
    files = [name for name in (CONFIG, *BESIDES, *TOKENIZERS) if name in there]
    if WEIGHTS in there:
        return (*files, WEIGHTS)
    shards = read_index(read(INDEX), f"{where}/{INDEX}")
    if missing := [name for name in shards if name not in there]:
        raise HubError(f"{where}/{INDEX}: expected shards that are there, found {missing[0]!r}")
    return (*files, INDEX, *shards)


def read_index(path: Path, where: str) -> list[str]:
    """The shards that an index names, sorted. Raises HubError."""
    if path.stat().st_size > MAX_INDEX:
        raise HubError(f"{where}: expected at most {MAX_INDEX} bytes, found {path.stat().st_size}")
    try:
        shards = set(json.loads(path.read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        shards = set()
    if not shards or not all(isinstance(s, str) and "/" not in s and is_safe(s) for s in shards):
        raise HubError(f"{where}: weight_map: expected names of tensors with names of files, found others")
    return sorted(shards)


def _listing(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "no file") + more
