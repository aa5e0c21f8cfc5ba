"""Models of the Hugging Face hub: `org/repo[:quant][@revision]` -> a local path.

    hub_files   which files of a repo are the model        hub_fetch   files into the cache, checked

What is downloaded lies in huggingface_hub's cache, shared with other programs, and its environment counts:
HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .errors import HubError
from .hub_files import PREFERRED, choose

logger = logging.getLogger("pyllama")

_HOSTS = re.compile(r"(?:https://)?(?:hf\.co|huggingface\.co)/")
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"  # of a repo's name
_NAME = re.compile(rf"(?![^:@]*(?:--|\.\.))({_PART}/{_PART})((?:[:@][^:@\s]+){{0,2}})")
_FILES = (".gguf", ".safetensors", ".bin", ".json", ".model")


@dataclass(frozen=True)
class HubName:
    """`org/repo[:quant][@revision]`, the parts after the repo in either order.

    quant: of a GGUF file (Q4_K_M, any case) or its whole name; for safetensors q8_0 or q4_0.
    revision: a branch, tag or commit.
    """

    repo: str
    quant: str | None = None
    revision: str = "main"

    @classmethod
    def parse(cls, text: str) -> HubName:
        """The name in `text`, which may begin with hf.co/. Raises ValueError."""
        match = _NAME.fullmatch(_HOSTS.sub("", text, count=1))
        parts = re.findall(r"([:@])([^:@]+)", match[2]) if match else []
        given = dict(parts)
        if not match or len(given) != len(parts):
            raise ValueError(f"name: expected org/repo[:quant][@revision], found {text!r:.200}")
        return cls(match[1], given.get(":"), given.get("@", "main"))

    def __str__(self) -> str:
        quant = "" if self.quant is None else f":{self.quant}"
        return f"{self.repo}{quant}" + (f"@{self.revision}" if self.revision != "main" else "")


@dataclass(frozen=True)
class HubModel:
    """A model on this machine. path: a GGUF file (of shards the first) or a folder of safetensors.
    quantize: what the weights shall become while they are loaded, "q8_0" or "q4_0", or None."""

    path: Path
    quantize: str | None = None


def is_hub_name(text: str | os.PathLike[str]) -> bool:
    """Whether `text` means the hub: begins with hf.co/, or is org/repo and no file of that name exists.

    What ends as a model file does is a path, so that a missing file is an error and no download."""
    if not isinstance(text, str) or os.path.exists(text):
        return False
    if _HOSTS.match(text):
        return True
    try:
        return not HubName.parse(text).repo.lower().endswith(_FILES)
    except ValueError:
        return False


def resolve(
    name: str | HubName,
    progress: Callable[[int, int], None] | None = None,
    *,
    endpoint: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> HubModel:
    """The model of that name, downloaded unless the cache has it.

    If the repo has GGUF files, the quant picks one; without a quant it is Q4_K_M or the next best, which
    is logged. Otherwise it is the folder with config, tokenizer and safetensors. Without a network, what
    is complete in the cache is taken. progress: called with (bytes done, bytes in all).
    endpoint, cache_dir: instead of those of the environment.
    Raises HubError saying what is missing and what to do, ValueError for a name that is none, OSError.
    """
    wanted = name if isinstance(name, HubName) else HubName.parse(name)
    from .hub_fetch import Remote, RepoCache

    cache = RepoCache(wanted.repo, cache_dir)
    try:
        remote = Remote(wanted.repo, wanted.revision, cache, endpoint)
    except HubError as error:
        return _cached(wanted, cache.snapshot(wanted.revision), error)

    def read(file: str) -> Path:
        remote.fetch((file,))
        return remote.path(file)

    choice = choose(remote.files, wanted.quant, read, wanted.repo)
    if wanted.quant is None and choice.quant not in (None, PREFERRED[0]):
        logger.warning("%s: no %s, taking %s", wanted.repo, PREFERRED[0], choice.quant)
    remote.fetch(choice.files, progress)
    cache.remember(wanted.revision, remote.commit)
    return HubModel(remote.path(choice.main), choice.quantize)


def _cached(wanted: HubName, snapshot: Path | None, reason: HubError) -> HubModel:
    """The model in a folder of the cache, if it is complete; raises `reason` else."""
    if snapshot is None:
        raise reason
    names = [p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*") if p.is_file()]
    try:
        choice = choose(names, wanted.quant, snapshot.joinpath, f"{wanted.repo} in the cache")
    except HubError as error:
        raise HubError(f"{reason}; {error}") from reason
    logger.info("%s; taking what the cache has", reason)
    return HubModel(snapshot / choice.main, choice.quantize)
