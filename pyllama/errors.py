"""The exceptions of pyllama. Bad arguments raise plain ValueError or TypeError."""


class PyllamaError(Exception):
    """Base of every error that is pyllama's own."""


class ModelLoadError(PyllamaError):
    """A model file is broken, truncated or contradicts itself."""


class UnsupportedModelError(ModelLoadError):
    """A well-formed file asks for something that pyllama does not implement."""


class ContextLengthError(PyllamaError, ValueError):
    """A prompt does not fit into the context."""


class OutOfKVBlocks(PyllamaError):
    """The KV cache has no free block left for a request."""


class NumericError(PyllamaError, ArithmeticError):
    """A model computed logits of which none is a number: no token can be drawn from them."""


class Cancelled(PyllamaError):
    """The request was cancelled, or its LLM was closed, before it finished."""


class InsufficientMemoryError(PyllamaError, MemoryError):
    """A model, with its KV cache, needs more memory than there is."""


class HubError(PyllamaError):
    """A model cannot be had from the hub, nor from the cache of what was downloaded before."""


class ChatTemplateError(PyllamaError, ValueError):
    """A chat template is missing or broken, refuses its messages, or takes too much time or memory."""
