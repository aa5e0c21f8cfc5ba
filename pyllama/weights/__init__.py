"""Model files: GGUF and Hugging Face folders."""

from __future__ import annotations

import os

from .source import ModelSource


def open_model(path: str | os.PathLike[str]) -> ModelSource:
    """The model at `path`: a Hugging Face folder, or else a GGUF file.

    Raises OSError, ModelLoadError and UnsupportedModelError as HFFolder and GGUFFile do.
    """
    if os.path.isdir(path):
        from .hf import HFFolder

        return HFFolder(path)
    from .gguf import GGUFFile

    return GGUFFile(path)
