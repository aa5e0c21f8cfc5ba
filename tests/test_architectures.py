"""Every architecture: logits of transformers, the reference in float64, and the same bits always."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from ggufmodel import bits, forward
from ggufwriter import write_gguf
from hfmodel import CONFIGS, IDS, N_CTX, ROWS, model, version5, weights, write_folder
from reference import record, run_reference

from pyllama.fusion import RULES
from pyllama.weights import open_model
from pyllama.weights.hf import gguf_name

GOLDEN = Path(__file__).with_name("golden_architectures.npz")
ONE_EACH = ("llama-biases-linear", "mistral-window", "qwen2-window", "qwen3-window", "phi3-long",
            "granite-biases", "smollm3-window")  # fmt: skip


def logits(path: str, name: str = "", chunk: int = 64, **options: Any) -> np.ndarray:
    """[n, vocab] of IDS in chunks of `chunk`."""
    steps = [[(0, IDS[i : i + chunk])] for i in range(0, len(IDS), chunk)]
    return forward(path, steps, n_ctx=N_CTX.get(name), **options)[0]


@pytest.mark.parametrize("dialect", [4, 5])
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_transformers(tmp_path: Path, name: str, dialect: int) -> None:
    config = CONFIGS[name] if dialect == 4 else version5(CONFIGS[name])
    path = write_folder(tmp_path, config, weights(CONFIGS[name]))
    found = logits(path, name, compute="f32")[ROWS]
    with np.load(GOLDEN) as golden:
        assert np.abs(found - golden[name]).max() <= 1e-4


@pytest.mark.parametrize("name", ONE_EACH)
def test_same_bits(tmp_path: Path, name: str) -> None:
    path = write_folder(tmp_path, CONFIGS[name])
    whole = bits(logits(path, name))
    for chunk, n_threads in ((1, 2), (5, 1), (17, 3)):
        assert np.array_equal(bits(logits(path, name, chunk, n_threads=n_threads)), whole)
    assert np.array_equal(bits(logits(path, name, rules=())), whole)  # as recorded, nothing fused


@pytest.mark.parametrize("name", ONE_EACH)
def test_fused_programs_are_the_equations(tmp_path: Path, name: str) -> None:
    path = write_folder(tmp_path, CONFIGS[name])
    values = {gguf_name(k): v.astype(np.float64) for k, v in weights(CONFIGS[name]).items()}
    with open_model(path) as source:
        plain, fused = (
            run_reference(nodes, g, values, IDS) for g, nodes in (record(source), record(source, RULES))
        )
    assert np.abs(plain - fused).max() < 1e-12 * np.abs(plain).max()


@pytest.mark.parametrize("window", [40, 600])
def test_windows_over_many_key_chunks(tmp_path: Path, window: int) -> None:
    config = model("mistral", sliding_window=window, num_hidden_layers=1, max_position_embeddings=2048)
    path = write_folder(tmp_path, config)
    ids = np.random.default_rng(1).integers(0, 128, 1300).tolist()
    values = {gguf_name(k): v.astype(np.float64) for k, v in weights(config).items()}
    with open_model(path) as source:
        graph, nodes = record(source)
    expected = run_reference(nodes, graph, values, ids)
    options: dict[str, Any] = {"compute": "f32", "prefill_chunk": 1300}
    whole = forward(path, [[(0, ids)]], **options)[0]
    assert np.abs(whole - expected).max() <= 1e-4
    parts = forward(path, [[(0, ids[:1250])], *([(0, [i])] for i in ids[1250:])], n_threads=2, **options)[0]
    assert np.array_equal(bits(parts), bits(whole))


# ---- weights of other types


def converted(folder: Path, name: str, dtype: np.dtype | type) -> str:
    """The folder with its tensors as `dtype`."""
    return write_folder(
        folder, CONFIGS[name], {k: v.astype(dtype) for k, v in weights(CONFIGS[name]).items()}
    )


WIDE = model(
    "qwen2", hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2, head_dim=16
)


@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_quantized_while_loading_is_as_quantized_by_gguf(tmp_path: Path, kind: str) -> None:
    quant = gguf.GGMLQuantizationType[kind.upper()]
    folder = write_folder(tmp_path / "hf", WIDE)
    tensors = []
    for name, w in weights(WIDE).items():
        data = w if w.ndim == 1 else gguf.quants.quantize(w, quant)
        type_id = 0 if w.ndim == 1 else int(quant)
        tensors.append((gguf_name(name), list(reversed(w.shape)), type_id, data.tobytes()))
    kinds = {int: "u32", float: "f32", str: "str"}
    with open_model(folder) as source:
        metadata = [(k, kinds[type(v)], v) for k, v in source.metadata.items()]
    file = write_gguf(tmp_path / "m.gguf", metadata, tensors)
    assert np.array_equal(bits(logits(folder, quantize=kind)), bits(logits(file)))


def test_rows_that_do_not_divide_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_folder(tmp_path, model("llama"))  # 48 and 80 columns: no multiples of 32
    assert np.array_equal(bits(logits(folder, quantize="q8_0")), bits(logits(folder)))
    assert "kept token_embd.weight and" in caplog.text and "no multiple of the block of q8_0" in caplog.text
