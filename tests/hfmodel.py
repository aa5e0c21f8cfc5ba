"""Tiny random models in Hugging Face folders, of every architecture and in both dialects of config.json."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

Fields = dict[str, Any]
IDS = np.random.default_rng(7).integers(0, 128, 48).tolist()
ROWS = [0, 1, 6, 17, 33, 47]  # of the logits that are kept

BASE: Fields = {
    "vocab_size": 128,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24}
YARN_MORE = YARN | {"beta_fast": 8.0, "beta_slow": 2.0, "attention_factor": 1.3}
LINEAR = {"rope_type": "linear", "factor": 2.5}
ODD = {"num_attention_heads": 3, "num_key_value_heads": 1}


def longrope(n: int) -> Fields:
    """Factors for n frequencies."""
    rng = np.random.default_rng(n)
    short, long = rng.uniform(1, 1.5, n), rng.uniform(2, 6, n)
    return {"type": "longrope", "short_factor": short.tolist(), "long_factor": long.tolist()}


def model(kind: str, **fields: Any) -> Fields:
    """A config in transformers 4's dialect."""
    return BASE | {"model_type": kind} | fields


CONFIGS: dict[str, Fields] = {
    "llama-gqa": model("llama"),
    "llama-biases-linear": model(
        "llama", **ODD, head_dim=20, attention_bias=True, mlp_bias=True, rope_scaling=LINEAR
    ),
    "llama-tied-llama3": model(
        "llama",
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=10,
        tie_word_embeddings=True,
        rope_scaling=LLAMA3,
        rope_theta=5e5,
    ),
    "llama-yarn": model("llama", num_hidden_layers=1, rope_scaling=YARN_MORE),
    "mistral-window": model("mistral", sliding_window=7),
    "mistral-full": model(
        "mistral", num_attention_heads=5, num_key_value_heads=5, head_dim=12, sliding_window=None
    ),
    "mistral-yarn": model("mistral", **ODD, head_dim=16, sliding_window=20, rope_scaling=YARN),
    "qwen2-window": model(
        "qwen2", num_hidden_layers=3, use_sliding_window=True, sliding_window=9, max_window_layers=1
    ),
    "qwen2-tied": model("qwen2", tie_word_embeddings=True, sliding_window=5, use_sliding_window=False),
    "qwen2-yarn": model("qwen2", **ODD, rope_scaling=YARN, rope_theta=1e6),
    "qwen3-head-dim": model("qwen3", head_dim=32, tie_word_embeddings=True),
    "qwen3-biases": model("qwen3", **ODD, head_dim=18, attention_bias=True, rope_scaling=LINEAR),
    "qwen3-window": model(
        "qwen3",
        head_dim=16,
        use_sliding_window=True,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
        rope_scaling=YARN,
    ),
    "phi3-window": model("phi3", sliding_window=11, original_max_position_embeddings=96),
    "phi3-long": model(
        "phi3", **ODD, original_max_position_embeddings=16, rope_scaling=longrope(8), sliding_window=None
    ),
    "phi3-short-partial": model(
        "phi3",
        max_position_embeddings=256,
        original_max_position_embeddings=64,
        partial_rotary_factor=0.5,
        rope_scaling=longrope(3),
        sliding_window=30,
        tie_word_embeddings=True,
    ),
    "granite-multipliers": model(
        "granite",
        embedding_multiplier=6.0,
        attention_multiplier=0.2,
        residual_multiplier=0.3,
        logits_scaling=3.0,
    ),
    "granite-biases": model(
        "granite", **ODD, attention_bias=True, mlp_bias=True, residual_multiplier=0.5, logits_scaling=0.7
    ),
    "granite-tied": model(
        "granite",
        tie_word_embeddings=True,
        rope_scaling=LINEAR,
        embedding_multiplier=2.0,
        num_hidden_layers=1,
    ),
    "smollm3-nope": model("smollm3", num_hidden_layers=4, tie_word_embeddings=True),
    "smollm3-window": model(
        "smollm3",
        no_rope_layers=[0, 1],
        use_sliding_window=True,
        sliding_window=6,
        layer_types=["full_attention", "sliding_attention"],
    ),
    "smollm3-biases": model(
        "smollm3",
        **ODD,
        num_hidden_layers=3,
        no_rope_layer_interval=2,
        attention_bias=True,
        rope_scaling=YARN,
    ),
}  # fmt: skip
N_CTX = {"phi3-short-partial": 64}  # at most the original context: the short factors


def version5(config: Fields) -> Fields:
    """The same in transformers 5's dialect: rope_parameters, with everything about RoPE inside."""
    rope = dict(config.get("rope_scaling") or {"rope_type": "default"})
    rope["rope_type"] = rope.pop("type", None) or rope["rope_type"]
    rope["rope_theta"] = config["rope_theta"]
    if "partial_rotary_factor" in config:
        rope["partial_rotary_factor"] = config["partial_rotary_factor"]
    gone = ("rope_scaling", "rope_theta", "partial_rotary_factor")
    return {k: v for k, v in config.items() if k not in gone} | {"rope_parameters": rope}


def shapes(config: Fields) -> dict[str, tuple[int, ...]]:
    """transformers' tensor names and shapes."""
    c, kind = config, config["model_type"]
    dim, hidden = c["hidden_size"], c["intermediate_size"]
    head = c.get("head_dim") or dim // c["num_attention_heads"]
    q, kv = c["num_attention_heads"] * head, c["num_key_value_heads"] * head
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (c["vocab_size"], dim)}

    def linear(name: str, rows: int, cols: int, bias: object) -> None:
        found[f"{name}.weight"] = (rows, cols)
        if bias:
            found[f"{name}.bias"] = (rows,)

    for i in range(c["num_hidden_layers"]):
        block = f"model.layers.{i}."
        attn, mlp, biased = block + "self_attn.", block + "mlp.", c.get("attention_bias")
        found[block + "input_layernorm.weight"] = (dim,)
        if kind == "phi3":
            linear(attn + "qkv_proj", q + 2 * kv, dim, False)
            linear(mlp + "gate_up_proj", 2 * hidden, dim, False)
        else:
            for name, rows in (("q", q), ("k", kv), ("v", kv)):
                linear(f"{attn}{name}_proj", rows, dim, biased or kind == "qwen2")
            linear(mlp + "gate_proj", hidden, dim, c.get("mlp_bias"))
            linear(mlp + "up_proj", hidden, dim, c.get("mlp_bias"))
        linear(attn + "o_proj", dim, q, biased)
        linear(mlp + "down_proj", dim, hidden, c.get("mlp_bias"))
        if kind == "qwen3":
            found[attn + "q_norm.weight"] = found[attn + "k_norm.weight"] = (head,)
        found[block + "post_attention_layernorm.weight"] = (dim,)
    found["model.norm.weight"] = (dim,)
    if not c["tie_word_embeddings"]:
        found["lm_head.weight"] = (c["vocab_size"], dim)
    return found


def weights(config: Fields) -> dict[str, np.ndarray]:
    """float32 tensors, the same on every machine."""
    found = {}
    for name, shape in shapes(config).items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        values = rng.standard_normal(shape)
        if name.endswith("norm.weight"):
            values = 1 + 0.2 * values
        elif len(shape) == 2 and "embed" not in name:
            values *= 1.5 * shape[1] ** -0.5
        found[name] = values.astype(np.float32)
    return found


def write_folder(folder: Path, config: Fields, tensors: dict[str, np.ndarray] | None = None) -> str:
    """config.json and model.safetensors; returns the folder's path."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights(config) if tensors is None else tensors, str(folder / "model.safetensors"))
    return str(folder)
