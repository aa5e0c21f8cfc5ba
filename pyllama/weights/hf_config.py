"""config.json of transformers -> metadata under GGUF's keys.

Two dialects: transformers 4 writes `rope_theta`, `rope_scaling` and `partial_rotary_factor`,
transformers 5 one `rope_parameters`. Where GGUF has no key for a fact, one in its style is made:
`<arch>.rope.scaling.{low_freq_factor,high_freq_factor,short_factor,long_factor,attention_factor,
truncate}` and `smollm3.rope_layers`.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from pyllama.errors import UnsupportedModelError

from .gguf_header import load_error, show
from .json_file import JsonObject

MODEL_TYPES: Final = ("granite", "llama", "mistral", "phi3", "qwen2", "qwen3", "smollm3")
REQUIRED: Final = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "max_position_embeddings": "context_length",
}
OPTIONAL: Final = {"num_key_value_heads": "attention.head_count_kv", "head_dim": "attention.key_length"}
FLOATS: Final = {
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "embedding_multiplier": "embedding_scale",
    "attention_multiplier": "attention.scale",
    "residual_multiplier": "residual_scale",
    "logits_scaling": "logit_scale",
}
# transformers' class defaults, where a config.json may be silent and they are not ours
DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "granite": {"attention_multiplier": 1.0},
    "mistral": {"sliding_window": 4096, "rms_norm_eps": 1e-6},
    "qwen3": {"head_dim": 128},
    "smollm3": {"rope_theta": 2e6},
}
ROPE_TYPES: Final = {"default": "none", "su": "longrope"}
ROPE_KEYS: Final[dict[str, dict[str, str]]] = {
    "none": {},
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
        "original_max_position_embeddings": "original_context_length",
    },
    "yarn": {
        "factor": "factor",
        "attention_factor": "attention_factor",
        "beta_fast": "yarn_beta_fast",
        "beta_slow": "yarn_beta_slow",
        "truncate": "truncate",
        "original_max_position_embeddings": "original_context_length",
    },
    "longrope": {
        "attention_factor": "attention_factor",
        "short_factor": "short_factor",
        "long_factor": "long_factor",
        "original_max_position_embeddings": "original_context_length",
    },
}
"""Keys of the rope parameters by type, and what they are under `<arch>.rope.scaling`."""


class HFConfig:
    """The fields of one config.json, with the defaults of its model_type."""

    def __init__(self, config: JsonObject) -> None:
        self.path = config.path
        self.arch = config.values.get("model_type")
        if self.arch not in MODEL_TYPES:
            raise self.bad("model_type", f"one of {', '.join(MODEL_TYPES)}", self.arch, UnsupportedModelError)
        self.values = DEFAULTS.get(self.arch, {}) | config.values  # null says "none", and is no silence

    def bad(self, key: str, expected: str, found: object, cls: Any = None) -> Exception:
        """The error about a field."""
        return load_error(self.path, key, expected, show(found), *([cls] if cls else []))

    def number(self, key: str, values: dict[str, Any] | None = None) -> float | None:
        """A number of the config, or of `values`; None if it is not there."""
        value = (self.values if values is None else values).get(key)
        if value is None or (type(value) in (int, float) and abs(value) < 1e300):
            return value
        raise self.bad(key, "a number", value)

    def integer(self, key: str) -> int | None:
        """An integer of the config; None if it is not there."""
        value = self.values.get(key)
        if value is None or (type(value) is int and abs(value) < 1 << 62):
            return value
        raise self.bad(key, "an integer", value)

    def flags(self, key: str, n: int, spelled: dict[Any, bool]) -> np.ndarray | None:
        """A list of n flags, each spelled as a key of `spelled`; None if it is not there."""
        values = self.values.get(key)
        if values is None:
            return None
        if not isinstance(values, list) or len(values) != n:
            raise self.bad(key, f"a list of {n}", values)
        for value in values:
            if not isinstance(value, (str, int)) or value not in spelled:
                raise self.bad(key, f"a list of {', '.join(map(str, spelled))}", value)
        return np.array([spelled[v] for v in values])

    def require(self, key: str, *plain: object) -> None:
        """Raises UnsupportedModelError unless a field is absent or one of `plain`."""
        if self.values.get(key) is not None and self.values[key] not in plain:
            raise self.bad(key, " or ".join(map(str, plain)), self.values[key], UnsupportedModelError)


def metadata_of(file: JsonObject) -> dict[str, Any]:
    """GGUF's metadata for a config.json. Raises ModelLoadError, UnsupportedModelError."""
    config = HFConfig(file)
    arch = config.arch
    config.require("hidden_act", "silu", "swish")
    if config.values.get("quantization_config") is not None:
        expected = "none: load a GGUF, or use quantize= on the original"
        raise config.bad("quantization_config", expected, "one", UnsupportedModelError)
    found: dict[str, Any] = {"general.architecture": arch}
    for key, ours in (REQUIRED | OPTIONAL).items():
        value = config.integer(key)
        if value is None and key in REQUIRED:
            raise config.bad(key, "an integer", value)
        if value is not None:
            found[f"{arch}.{ours}"] = value
    for key, ours in FLOATS.items():
        number = config.number(key)
        if number is not None and (arch == "granite" or key == "rms_norm_eps"):
            found[f"{arch}.{ours}"] = float(number)
    return found | window_metadata(config, found[f"{arch}.block_count"]) | rope_metadata(config, found)


def window_metadata(config: HFConfig, n_layers: int) -> dict[str, Any]:
    """The sliding window, the layers that have it, and those that rotate."""
    arch = config.arch
    found: dict[str, Any] = {}
    window = config.integer("sliding_window")
    slides = config.flags("layer_types", n_layers, {"sliding_attention": True, "full_attention": False})
    if arch in ("qwen2", "qwen3", "smollm3"):
        if not config.values.get("use_sliding_window"):
            window = None
        elif slides is None and arch != "smollm3":
            slides = np.arange(n_layers) >= (config.integer("max_window_layers") or 0)
    if window is not None:
        found[f"{arch}.attention.sliding_window"] = window
        if slides is not None:
            found[f"{arch}.attention.sliding_window_pattern"] = slides
    if arch == "smollm3":
        interval = config.integer("no_rope_layer_interval") or 4
        if interval < 1:
            raise config.bad("no_rope_layer_interval", "an integer >= 1", interval)
        rotates = config.flags("no_rope_layers", n_layers, {1: True, 0: False})  # named by its opposite
        every = (np.arange(n_layers) + 1) % interval != 0
        found["smollm3.rope_layers"] = every if rotates is None else rotates
    return found


def rope_metadata(config: HFConfig, known: dict[str, Any]) -> dict[str, Any]:
    """The rotary base, dimensions and scaling, from either dialect."""
    arch = config.arch
    rope = config.values.get("rope_parameters") or config.values.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise config.bad("rope_parameters", "an object", rope)
    rope = {k: v for k, v in rope.items() if v is not None}
    kind = rope.pop("rope_type", None) or rope.get("type") or "default"
    rope.pop("type", None)
    if not isinstance(kind, str):
        raise config.bad("rope_parameters.rope_type", "a string", kind)
    kind = ROPE_TYPES.get(kind, kind)
    found: dict[str, Any] = {f"{arch}.rope.scaling.type": kind}
    base = rope.pop("rope_theta", config.values.get("rope_theta"))
    part = rope.pop("partial_rotary_factor", config.values.get("partial_rotary_factor"))
    if base is not None:
        found[f"{arch}.rope.freq_base"] = float(config.number("rope_theta", {"rope_theta": base}) or 0)
    if part is not None and part != 1:
        part = config.number("partial_rotary_factor", {"partial_rotary_factor": part})
        head_dim = known.get(f"{arch}.attention.key_length") or known[f"{arch}.embedding_length"] // max(
            1, known[f"{arch}.attention.head_count"]
        )
        found[f"{arch}.rope.dimension_count"] = int(head_dim * part)
    return found | scaling_metadata(config, kind, rope) if kind in ROPE_KEYS else found


def scaling_metadata(config: HFConfig, kind: str, rope: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a scaling. An unknown one is an error: it would change the model."""
    outer = config.values.get("original_max_position_embeddings")
    longest = config.integer("max_position_embeddings") or 1
    stretched = kind in ("llama3", "yarn", "longrope")
    if stretched and (outer is not None or "original_max_position_embeddings" not in rope):
        rope = rope | {"original_max_position_embeddings": longest if outer is None else outer}
    if kind == "longrope" and "attention_factor" not in rope:
        rope = rope | {"attention_factor": longrope_factor(config, rope, longest)}
    rope = {k: v for k, v in rope.items() if (kind, k) != ("longrope", "factor")}
    if kind == "yarn" and {"mscale", "mscale_all_dim"} <= rope.keys():
        rope = yarn_mscale(config, rope)
    found: dict[str, Any] = {}
    for key, value in rope.items():
        field = f"rope_parameters.{key}"
        if key not in ROPE_KEYS[kind]:
            expected = f"a parameter of {kind}: {', '.join(ROPE_KEYS[kind]) or 'none'}"
            raise config.bad(field, expected, show(value), UnsupportedModelError)
        ours = f"{config.arch}.rope.scaling.{ROPE_KEYS[kind][key]}"
        if key == "truncate":
            found[ours] = value
        elif isinstance(value, list):
            found[ours] = np.array([config.number(field, {field: v}) for v in value], np.float64)
        else:
            number = config.number(field, {field: value})
            whole = key == "original_max_position_embeddings" and number == int(number or 0)
            found[ours] = int(number or 0) if whole else float(number or 0)
    return found


def longrope_factor(config: HFConfig, rope: dict[str, Any], longest: int) -> float:
    """What cos and sin are times: sqrt(1 + ln(stretch) / ln(original))."""
    original = config.number("original_max_position_embeddings", rope) or 1
    stretch = config.number("factor", rope) or longest / max(original, 1)
    return math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 and original > 1 else 1.0


def yarn_mscale(config: HFConfig, rope: dict[str, Any]) -> dict[str, Any]:
    """DeepSeek's spelling of the attention factor."""

    def scale(key: str) -> float:
        factor = config.number("factor", rope) or 1.0
        return 1.0 if factor <= 1 else 0.1 * (config.number(key, rope) or 1.0) * math.log(factor) + 1.0

    plain = {k: v for k, v in rope.items() if k not in ("mscale", "mscale_all_dim")}
    return {"attention_factor": scale("mscale") / scale("mscale_all_dim")} | plain
