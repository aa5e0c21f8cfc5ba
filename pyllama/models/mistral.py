"""Mistral (Jiang et al. 2023): Llama whose attention may slide. Its GGUF files say "llama"."""

from .llama import Llama


class Mistral(Llama):
    """x + attention over the last `windows[layer]` positions"""


MODEL = Mistral
