"""Writes a checkpoint as GGUF: python -m storyteller.export MODEL.pt OUT.gguf

Matrices in Q8_0, vectors in F32. The rows of q and k go from split halves to the interleaved order that
GGUF's llama architecture has.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from sentencepiece import SentencePieceProcessor

from .model import Config

FILE_TYPES = {"F32": gguf.LlamaFileType.ALL_F32, "Q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
# The turns as Phi-3 writes them, with an optional system turn; tokens.Encoder.chat does the same.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
TEMPERATURE, MIN_P = 0.8, 0.1  # what the model is checked at
NAMES = {
    "attention.q": "attn_q",
    "attention.k": "attn_k",
    "attention.v": "attn_v",
    "attention.o": "attn_output",
    "attn_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


def interleaved(rows: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows of q or k: row i and row i + head_dim / 2 of a head become neighbours."""
    heads = rows.reshape(-1, 2, head_dim // 2, rows.shape[1])
    return np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(rows.shape)


def tensors(weights: dict[str, torch.Tensor], head_dim: int) -> dict[str, np.ndarray]:
    """GGUF's names and rows, float32."""
    out = {}
    for name, tensor in weights.items():
        array = tensor.float().numpy()
        if name.startswith("layers."):
            _, layer, role, _ = name.replace("attention.", "attention/").split(".")
            role = role.replace("/", ".")
            if role in ("attention.q", "attention.k"):
                array = interleaved(array, head_dim)
            out[f"blk.{layer}.{NAMES[role]}.weight"] = array
        else:
            out[{"embedding.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}[name]] = array
    return out


def add_config(writer: gguf.GGUFWriter, c: Config) -> None:
    writer.add_name("pyllama storyteller")
    writer.add_description("Tells short children's stories and answers questions about them")
    writer.add_license("Apache-2.0")
    writer.add_languages(["en"])
    writer.add_sampling_temp(TEMPERATURE)
    writer.add_sampling_min_p(MIN_P)
    writer.add_context_length(c.n_ctx)
    writer.add_embedding_length(c.dim)
    writer.add_feed_forward_length(c.hidden_dim)
    writer.add_block_count(c.n_layers)
    writer.add_head_count(c.n_heads)
    writer.add_head_count_kv(c.n_kv_heads)
    writer.add_key_length(c.head_dim)
    writer.add_value_length(c.head_dim)
    writer.add_rope_dimension_count(c.head_dim)
    writer.add_rope_freq_base(c.rope_base)
    writer.add_layer_norm_rms_eps(c.eps)
    writer.add_vocab_size(c.vocab_size)


def add_vocabulary(writer: gguf.GGUFWriter, model: bytes) -> None:
    p = SentencePieceProcessor(model_proto=model)
    ids = range(p.vocab_size())
    kinds = [
        UNKNOWN if p.is_unknown(i) else CONTROL if p.is_control(i) else BYTE if p.is_byte(i) else NORMAL
        for i in ids
    ]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([p.id_to_piece(i) for i in ids])
    writer.add_token_scores([p.get_score(i) for i in ids])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(p.bos_id())
    writer.add_eos_token_id(p.eos_id())
    writer.add_eot_token_id(p.piece_to_id("<|end|>"))
    writer.add_unk_token_id(p.unk_id())
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def export(checkpoint: dict[str, Any], path: Path, kind: str = "Q8_0") -> None:
    """kind: type of the matrices, Q8_0, or F32 to compare with torch."""
    config = Config(**checkpoint["config"])
    writer = gguf.GGUFWriter(path, "llama")
    add_config(writer, config)
    add_vocabulary(writer, checkpoint["vocabulary"])
    matrix = gguf.GGMLQuantizationType[kind]
    writer.add_file_type(FILE_TYPES[kind])
    for name, array in tensors(checkpoint["weights"], config.head_dim).items():
        if array.ndim == 1:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, gguf.quants.quantize(array, matrix), raw_dtype=matrix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What train.save wrote."""
    return torch.load(path, weights_only=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    export(load_checkpoint(arguments.checkpoint), arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes")
