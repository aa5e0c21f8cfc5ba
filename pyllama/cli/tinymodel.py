"""A tiny random Llama model as a GGUF file: it babbles, so that commands can be tried without a download."""

from __future__ import annotations

import itertools
import os
import string
from pathlib import Path

import click
import numpy as np

from pyllama.weights.gguf_write import write_gguf

from .common import note
from .options import number

DIM, HIDDEN_DIM, N_LAYERS, N_HEADS, N_KV_HEADS, N_CTX = 64, 128, 2, 4, 2, 256
KINDS = ("F32", "BF16", "Q8_0")  # GGUF's tensor types
N_WORDS = 300

# Each embedding has this value in its first place, and the head weighs it: a bias of the logits.
# Words are likelier than letters, and bytes, tags and the end come next to never.
BIAS_INPUT = 8.0
BIAS = {"word": 0.2, "mark": -0.4, "letter": -1.0, "other": -4.0}
HEAD_SCALE = 0.25

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.role }}: {{ message.content }}"
    "{{ eos_token if message.role == 'assistant' }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def _vocabulary(rng: np.random.Generator) -> tuple[list[str], list[int], list[str]]:
    """Pieces, their SentencePiece types, and their classes in BIAS."""
    syllables = ["".join(s) for s in itertools.product("bdfgklmnprstvw", "aeiou")]
    words = []
    for n in rng.integers(1, 4, N_WORDS):
        words.append("\u2581" + "".join(rng.choice(syllables, n)))
    letters = ["\u2581", *string.ascii_letters, *string.digits]
    groups = (
        (["<unk>"], 2, "other"),
        (["<s>", "</s>"], 3, "other"),
        ([f"<0x{i:02X}>" for i in range(256)], 6, "other"),
        (dict.fromkeys(words), 1, "word"),
        (syllables, 1, "word"),
        (".,!?", 1, "mark"),
        (letters + list("\"#$%&'()*+-/:;<=>@[\\]^_`{|}~"), 1, "letter"),
    )
    found = [(piece, kind, name) for pieces, kind, name in groups for piece in pieces]
    return [f[0] for f in found], [f[1] for f in found], [f[2] for f in found]


def _tensors(rng: np.random.Generator, classes: list[str], tied: bool) -> dict[str, np.ndarray]:
    """Name -> float32 array, rows first."""

    def matrix(rows: int, cols: int, scale: float = 1.0) -> np.ndarray:
        return rng.normal(0.0, scale / cols**0.5, (rows, cols)).astype(np.float32)

    ones, kv_rows = np.ones(DIM, np.float32), DIM // N_HEADS * N_KV_HEADS
    embedding = matrix(len(classes), DIM, DIM**0.5)
    embedding[:, 0] = BIAS_INPUT
    tensors = {"token_embd.weight": embedding, "output_norm.weight": ones}
    for i in range(N_LAYERS):
        block = {
            "attn_norm": ones,
            "attn_q": matrix(DIM, DIM, 4.0),
            "attn_k": matrix(kv_rows, DIM, 4.0),
            "attn_v": matrix(kv_rows, DIM),
            "attn_output": matrix(DIM, DIM),
            "ffn_norm": ones,
            "ffn_gate": matrix(HIDDEN_DIM, DIM),
            "ffn_up": matrix(HIDDEN_DIM, DIM),
            "ffn_down": matrix(DIM, HIDDEN_DIM),
        }
        tensors |= {f"blk.{i}.{name}.weight": array for name, array in block.items()}
    if not tied:
        head = matrix(len(classes), DIM, HEAD_SCALE * DIM**0.5)
        head[:, 0] = [BIAS[name] for name in classes]
        tensors["output.weight"] = head
    return tensors


def _encode(array: np.ndarray, kind: str) -> bytes:
    """The bytes of a matrix in a tensor type."""
    if kind == "F32":
        return array.tobytes()
    if kind == "BF16":  # to nearest, ties to even
        bits = array.view(np.uint32).astype(np.uint64)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    blocks = array.reshape(-1, 32)
    scale = np.abs(blocks).max(1, keepdims=True) / 127
    quants = np.rint(blocks / np.where(scale == 0, 1, scale)).astype(np.int8)
    return np.hstack((scale.astype("<f2").view(np.int8).reshape(-1, 2), quants)).tobytes()


def write_tiny_model(
    path: str | os.PathLike[str], seed: int = 0, kind: str = "F32", *, tied: bool = False, n_ctx: int = N_CTX
) -> None:
    """Writes a random Llama model of 0.2 M parameters with a SentencePiece vocabulary to `path`.

    seed: same seed, same file. kind: type of the matrices, F32, BF16 or Q8_0. tied: the head is the
    embedding; such a model repeats itself. n_ctx: its context. Raises OSError, ValueError.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, found {kind!r}")
    rng = np.random.default_rng(seed)
    pieces, types, classes = _vocabulary(rng)
    metadata = {
        "general.architecture": "llama",
        "general.name": "tiny random model",
        "llama.context_length": n_ctx,
        "llama.embedding_length": DIM,
        "llama.feed_forward_length": HIDDEN_DIM,
        "llama.block_count": N_LAYERS,
        "llama.attention.head_count": N_HEADS,
        "llama.attention.head_count_kv": N_KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": [-float(i) for i in range(len(pieces))],
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }
    tensors = []
    for name, array in _tensors(rng, classes, tied).items():
        found = kind if array.ndim == 2 else "F32"
        tensors.append((name, found, array.shape, _encode(array, found)))
    write_gguf(path, metadata, tensors)


@click.command(short_help="Write a tiny random model.")
@click.argument("out", metavar="OUT")
@number("-s", "--seed", default=0, text="Same seed, same file.")
@click.option(
    "--kind", type=click.Choice(KINDS), default="F32", show_default=True, help="Type of the weights."
)
@click.option("--tied", is_flag=True, help="Use the embedding as the head: the model repeats itself.")
@click.option("--force", is_flag=True, help="Overwrite a file.")
def command(out: str, seed: int, kind: str, tied: bool, force: bool) -> None:
    """Write a tiny random model to try the commands with: it babbles."""
    path = Path(out)
    with path.open("wb" if force else "xb"):  # fails before any work is done
        pass
    write_tiny_model(path, seed, kind, tied=tied)
    note(f"{path}: {path.stat().st_size} bytes of random weights; try: pyllama run -m {path} -p ''")
