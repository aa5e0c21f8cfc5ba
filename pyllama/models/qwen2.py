"""Qwen2 and Qwen2.5 (Yang et al. 2024): Llama with biases on Q, K and V."""

from .llama import Llama


class Qwen2(Llama):
    """q = h W_q^T + b_q, and so k and v"""

    qkv_bias = True


MODEL = Qwen2
