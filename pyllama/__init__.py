"""pyllama: inference for Llama-family models on CPUs.

    llm      LLM: generate, stream, chat, logits      cli/     the command line
      chat     messages -> prompt; chat_template, template_sandbox, template_limits
      engine   the thread that owns everything: scheduler, requests (request.py)
        model    a file's weights and its Program     tokenizer  text <-> ids
          models/<arch>   the equations of an architecture
          program, fusion, plan   record ops, rewrite them, give them memory
          weights/        a file -> named tensors, every bound checked
            _core           doors to csrc/, where all computing happens
    hub      names of the Hugging Face hub -> local paths
    doctor   this machine: facts, a check of the kernels, speed

Heavy imports wait until they are needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "LLM": "llm",
    "Stream": "llm",
    "SamplingParams": "sampling",
    "RequestOutput": "request",
    "CompletionOutput": "request",
    "Logprob": "request",
    "Timings": "request",
    "Tokenizer": "tokenizer",
    "ChatTemplate": "chat_template",
    "PyllamaError": "errors",
    "ModelLoadError": "errors",
    "UnsupportedModelError": "errors",
    "ContextLengthError": "errors",
    "ChatTemplateError": "errors",
    "NumericError": "errors",
    "OutOfKVBlocks": "errors",
    "Cancelled": "errors",
    "InsufficientMemoryError": "errors",
    "HubError": "errors",
}

__all__ = [*_HOMES, "__version__"]

if TYPE_CHECKING:
    from .chat_template import ChatTemplate
    from .errors import (
        Cancelled,
        ChatTemplateError,
        ContextLengthError,
        HubError,
        InsufficientMemoryError,
        ModelLoadError,
        NumericError,
        OutOfKVBlocks,
        PyllamaError,
        UnsupportedModelError,
    )  # fmt: skip
    from .llm import LLM, Stream
    from .request import CompletionOutput, Logprob, RequestOutput, Timings
    from .sampling import SamplingParams
    from .tokenizer import Tokenizer


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pyllama' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
