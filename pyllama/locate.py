"""What a user calls a model -> where it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .hub import is_hub_name, resolve

BUNDLED: Final = Path(__file__).with_name("data") / "storyteller.gguf"


@dataclass(frozen=True)
class Located:
    """A GGUF file (of shards the first) or a Hugging Face folder. quantize: "q8_0", "q4_0" or None,
    what its name asked the weights to become."""

    path: str
    quantize: str | None = None


def locate(
    model: str | os.PathLike[str] | None, progress: Callable[[int, int], None] | None = None
) -> Located:
    """The bundled storyteller for None; a path as it is; a name of the hub, downloaded if need be.

    progress: called with (bytes done, bytes in all) during a download. Raises HubError, OSError,
    ValueError for an empty string.
    """
    if model is None:
        return Located(str(BUNDLED))
    if os.fspath(model) in ("", b""):
        raise ValueError("model: expected a path or a name of the hub, found an empty string")
    if isinstance(model, str) and is_hub_name(model):
        found = resolve(model, progress)
        return Located(str(found.path), found.quantize)
    return Located(os.fsdecode(model))
