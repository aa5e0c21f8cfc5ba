"""Weights and tokenizer while they load: progress, interruption, files that change underneath."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from ggufmodel import ModelFiles

from pyllama import LLM, Cancelled, ModelLoadError, _core, llm


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return ModelFiles(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def large(files: ModelFiles) -> str:
    """Some chunks per matrix, and some matrices that are converted."""
    return files(format="F32", dim=1024, hidden_dim=4096, n_layers=2, n_heads=16, n_kv_heads=4)


def engine_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "pyllama"]


def once_planned(monkeypatch: pytest.MonkeyPatch, do: Callable[[], None]) -> None:
    """Lets `do` happen after the header was read, before any weight is."""
    model = llm.Model

    def planned(*args, **options):
        made = model(*args, **options)
        do()
        return made

    monkeypatch.setattr(llm, "Model", planned)


@pytest.mark.parametrize("quantize", [None, "q8_0"])
def test_progress_is_told_in_the_callers_thread(large: str, quantize: str | None) -> None:
    calls = []
    with LLM(
        large, quantize=quantize, progress=lambda *now: calls.append((threading.current_thread(), *now))
    ):
        pass
    size = os.path.getsize(large)
    assert {thread for thread, _, _ in calls} == {threading.current_thread()}
    assert {total for _, _, total in calls} == {size}
    done = [done for _, done, _ in calls]
    assert done == sorted(done) and done[0] >= 0 and done[-1] == size


def test_all_bytes_of_the_matrices_are_counted(large: str) -> None:
    with LLM(large) as open_llm:
        model = open_llm._model
        weights = [w for _, w in model.tables.matrices.values()]
        assert model.loading.done == sum(4 * w.n_rows * w.n_cols for w in weights)


def test_an_interruption_ends_the_load(large: str) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LLM(large, progress=interrupt)
    assert not engine_threads()


def test_a_stopped_load_does_nothing(large: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loadings = []

    class Stopped(_core.Loading):
        def __init__(self) -> None:
            self.stop()
            loadings.append(self)

    monkeypatch.setattr(_core, "Loading", Stopped)
    with pytest.raises(Cancelled, match="loading was interrupted"):
        LLM(large)
    assert loadings[0].done == 0 and not engine_threads()


@pytest.mark.parametrize("left", [0.2, 0.9])
def test_a_file_that_shrinks_is_an_error(
    large: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: float
) -> None:
    path = tmp_path / "shrinks.gguf"
    shutil.copy(large, path)
    once_planned(monkeypatch, lambda: os.truncate(path, int(os.path.getsize(path) * left)))
    with pytest.raises(ModelLoadError, match=r"shrinks\.gguf: \S+\.weight: the file ends early"):
        LLM(path)
    assert not engine_threads()


def test_a_bad_tokenizer_ends_the_load(large: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise ModelLoadError("model.gguf: tokenizer.ggml.tokens: expected pieces, found none")

    monkeypatch.setattr(llm.Tokenizer, "of_model", refuse)
    with pytest.raises(ModelLoadError, match=r"tokenizer\.ggml\.tokens"):
        LLM(large)
    assert not engine_threads()
