"""Hugging Face folders: what is refused, and how it is said."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz_folders
import numpy as np
import pytest
from ggufmodel import bits, forward
from hfmodel import CONFIGS, IDS, model, weights, write_folder
from published import SHARED, needs_shared
from safetensors.numpy import save_file

from pyllama import LLM, SamplingParams
from pyllama.errors import ModelLoadError, UnsupportedModelError
from pyllama.sampling import read_defaults
from pyllama.weights import open_model

STORIES = SHARED / "stories260k" / "hf"


def load(path: str) -> np.ndarray:
    return forward(path, [[(0, IDS)]])[0]


@needs_shared
def test_a_trained_folder_has_the_logits_of_its_gguf() -> None:
    ids = json.loads((SHARED / "stories260k" / "logits_prompt.json").read_text())
    ids = ids if isinstance(ids, list) else next(v for v in ids.values() if isinstance(v, list))
    found = forward(str(STORIES), [[(0, ids)]], compute="f32")[0]
    same = forward(str(SHARED / "stories260k" / "stories260k-f32.gguf"), [[(0, ids)]], compute="f32")[0]
    assert np.array_equal(bits(found), bits(same))


def shard(folder: Path, parts: int, change: Callable[[dict[str, str]], None] = lambda m: None) -> str:
    """CONFIGS["llama-gqa"] in several files with an index, which `change` may spoil."""
    write_folder(folder, CONFIGS["llama-gqa"])
    (folder / "model.safetensors").unlink()
    tensors = list(weights(CONFIGS["llama-gqa"]).items())
    places = {}
    for i in range(parts):
        name = f"model-{i + 1:05}-of-{parts:05}.safetensors"
        save_file(dict(tensors[i::parts]), str(folder / name))
        places |= {key: name for key, _ in tensors[i::parts]}
    change(places)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return str(folder)


def test_shards_are_one_model(tmp_path: Path) -> None:
    whole = load(write_folder(tmp_path / "one", CONFIGS["llama-gqa"]))
    assert np.array_equal(bits(load(shard(tmp_path / "three", 3))), bits(whole))


def test_types_of_weights(tmp_path: Path) -> None:
    w = weights(CONFIGS["llama-gqa"])
    rounded = {k: (v.view("<u4") & 0xFFFF0000).view("<f4") for k, v in w.items()}
    exact = load(write_folder(tmp_path / "f32", CONFIGS["llama-gqa"], rounded))
    path = Path(write_folder(tmp_path / "bf16", CONFIGS["llama-gqa"], rounded))
    header, data, at = {}, b"", 0
    for name, v in rounded.items():
        raw = (v.view("<u4") >> 16).astype("<u2").tobytes()
        header[name] = {"dtype": "BF16", "shape": v.shape, "data_offsets": [at, at + len(raw)]}
        data, at = data + raw, at + len(raw)
    text = json.dumps(header).encode()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    found = forward(str(path), [[(0, IDS)]], compute="f32")[0]
    assert np.array_equal(bits(found), bits(forward(str(tmp_path / "f32"), [[(0, IDS)]], compute="f32")[0]))
    assert np.abs(load(str(path)) - exact).max() < 0.1


YARN = {"rope_type": "yarn", "factor": 2.0}


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        (
            {"model_type": "gpt2"},
            UnsupportedModelError,
            "model_type: expected one of granite, llama, mistral",
        ),
        ({"model_type": None}, UnsupportedModelError, "model_type: expected one of"),
        ({"hidden_act": "gelu"}, UnsupportedModelError, "hidden_act: expected silu or swish, found 'gelu'"),
        ({"quantization_config": {"bits": 4}}, UnsupportedModelError, "quantization_config: expected none"),
        ({"hidden_size": "48"}, ModelLoadError, "hidden_size: expected an integer, found '48'"),
        ({"hidden_size": None}, ModelLoadError, "hidden_size: expected an integer"),
        ({"num_key_value_heads": 3}, ModelLoadError, "expected a divisor of 4, found 3"),
        ({"head_dim": 7}, ModelLoadError, "expected an even number, found 7"),
        ({"vocab_size": 5}, None, ""),  # the tensor says
        ({"intermediate_size": 81}, ModelLoadError, r"shape of blk.0.ffn_gate.weight: expected \[81, 48\]"),
        ({"num_hidden_layers": 3}, ModelLoadError, "tensor 'blk.2.attn_norm.weight': expected a tensor"),
        ({"num_hidden_layers": 1}, UnsupportedModelError, "tensors: expected none but those of the arch"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, UnsupportedModelError, "found 'dynamic'"),
        (
            {"rope_scaling": YARN | {"alpha": 1}},
            UnsupportedModelError,
            "rope_parameters.alpha: expected a para",
        ),
        ({"rope_scaling": {"rope_type": "linear"}}, ModelLoadError, "rope.scaling.factor: expected a finite"),
        (
            {"rope_scaling": {"type": "linear", "factor": 0}},
            ModelLoadError,
            "factor: expected a finite float",
        ),
        ({"rope_scaling": [1]}, ModelLoadError, "rope_parameters: expected an object"),
        ({"rope_theta": "10"}, ModelLoadError, "rope_theta: expected a number, found '10'"),
    ],
)
def test_bad_configs(
    tmp_path: Path, fields: dict[str, Any], error: type[Exception] | None, message: str
) -> None:
    path = write_folder(tmp_path, CONFIGS["llama-gqa"] | fields, weights(CONFIGS["llama-gqa"]))
    if error is None:
        load(path)
        return
    with pytest.raises(error, match=message) as found:
        load(path)
    assert type(found.value) is error and str(tmp_path) in str(found.value)


@pytest.mark.parametrize("window", [(1 << 31) - 1, 1 << 31])
def test_a_window_wider_than_any_context_sees_all(tmp_path: Path, window: int) -> None:
    fields = CONFIGS["mistral-window"]
    found = load(write_folder(tmp_path / "wide", fields | {"sliding_window": window}, weights(fields)))
    all_seen = load(write_folder(tmp_path / "none", fields | {"sliding_window": None}, weights(fields)))
    assert np.array_equal(bits(found), bits(all_seen))


def test_bad_shards(tmp_path: Path) -> None:
    cases: dict[str, tuple[Callable[[dict[str, str]], object], str]] = {
        "a": (lambda m: m.update({"x": "model-00001-of-00002.safetensors"}), "tensor 'x': expected what the"),
        "b": (lambda m: m.pop("model.norm.weight"), "tensor 'model.norm.weight': expected what the index"),
        "c": (
            lambda m: m.update({"x": "../model.safetensors"}),
            "weight_map.'x': expected a file of the folder",
        ),
        "d": (lambda m: m.clear(), "weight_map: expected tensors, found none"),
    }
    for name, (change, message) in cases.items():
        with pytest.raises(ModelLoadError, match=message):
            open_model(shard(tmp_path / name, 2, change))  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"model-x\.safetensors"):
        open_model(shard(tmp_path / "e", 2, lambda m: m.update({"x": "model-x.safetensors"})))


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        open_model(tmp_path)
    path = Path(write_folder(tmp_path, model("llama")))
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match=r"expected model.safetensors or .*, found pytorch_model.bin"):
        open_model(path)


def test_nothing_but_loads_and_errors() -> None:
    counts = fuzz_folders.run(300, seed=1)
    assert counts["refused"] > 100 and counts["loaded"] > 40


# ---- generation_config.json


def trained_folder(tmp_path: Path, generation: Any) -> str:
    """The trained folder with another generation_config.json."""
    for name in ("config.json", "model.safetensors", "tokenizer.model", "tokenizer_config.json"):
        (tmp_path / name).symlink_to(STORIES / name)
    (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    return str(tmp_path)


@needs_shared
def test_the_model_recommends_how_to_sample(tmp_path: Path) -> None:
    with LLM(
        trained_folder(tmp_path, {"temperature": 0.6, "top_k": 1, "top_p": None, "eos_token_id": 2})
    ) as llm:
        assert llm.default_params == SamplingParams(temperature=0.6, top_k=1)
        greedy = llm.generate("Once", max_tokens=20, temperature=0)[0].text
        assert llm.generate("Once", max_tokens=20, seed=1)[0].text == greedy  # of the best one
        assert llm.generate("Once", max_tokens=20, seed=1, top_k=0, temperature=3)[0].text != greedy
        assert llm.generate("Once", SamplingParams(max_tokens=20, seed=1, temperature=3))[0].text != greedy


@needs_shared
@pytest.mark.parametrize(
    ("generation", "message"),
    [
        ({"temperature": -1}, "temperature: expected a number from 0"),
        ({"top_k": "40"}, "top_k: expected an int, found '40'"),
        ([], "expected a JSON object"),
    ],
)
def test_bad_recommendations(tmp_path: Path, generation: Any, message: str) -> None:
    with pytest.raises(ModelLoadError, match=rf"generation_config\.json: .*{message}"):
        LLM(trained_folder(tmp_path, generation))


def test_a_gguf_file_recommends_too() -> None:
    keys = {"temp": 0.6, "top_k": 20, "penalty_repeat": 1.1, "mirostat": 2, "top_p": None}
    metadata = {f"general.sampling.{name}": value for name, value in keys.items()}
    expected = SamplingParams(temperature=0.6, top_k=20, repetition_penalty=1.1)
    assert read_defaults("a.gguf", metadata) == expected
    with pytest.raises(ModelLoadError, match=r"a\.gguf: temperature: expected a number, found 'hot'"):
        read_defaults("a.gguf", metadata | {"general.sampling.temp": "hot"})
