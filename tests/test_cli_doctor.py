"""`pyllama doctor`: its facts, its verdict, and the models that it is made of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from clirun import ENV, run

from pyllama import _core, cpu, doctor
from pyllama.synthetic import Shape, random_blocks, write_model

SMALL = """
import sys; from pyllama import doctor; from pyllama.cli import main
doctor.PROBE_BYTES, doctor.PROBE_SECONDS, doctor.cache_bytes = 1, 0.05, lambda: 0
"""
MAIN = "sys.exit(main(['doctor', *sys.argv[1:]]))"


def small_doctor(*args: str, before: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
    """The command in a child that measures little; `before` is run there first."""
    command = [sys.executable, "-c", SMALL + before + MAIN, *args]
    done = subprocess.run(command, capture_output=True, text=True, env=ENV, timeout=120)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    done = run("doctor", "-o", "json")
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_facts(report: dict[str, Any]) -> None:
    assert report["isa"]["levels"] == [{"name": name, "runs": runs} for name, runs in _core.levels()]
    assert report["isa"]["used"] == _core.Kernels(os.environ.get("PYLLAMA_ISA") or None).name
    assert report["isa"]["forced"] == bool(os.environ.get("PYLLAMA_ISA"))
    machine = report["cpu"]
    assert machine["threads"] == cpu.default_threads() and machine["reason"] in machine["limits"]
    assert machine["limits"]["affinity"] == len(os.sched_getaffinity(0)) <= machine["cpus"]
    assert report["memory"]["available"] > 0 and report["memory"]["huge_pages"] == cpu.huge_pages()


def test_every_format_is_checked(report: dict[str, Any]) -> None:
    kernels = _core.Kernels(report["isa"]["used"])
    rows = report["self_test"]
    found = [(r["format"], r["kv"]) for r in rows]
    assert found == [*((f, "f16") for f in kernels.formats), *(("F32", kv) for kv in _core.KV_DTYPES[1:])]
    assert report["ok"] and all(r["ok"] and 0 <= r["error"] <= r["tolerance"] < 0.05 for r in rows)


def test_speed_and_what_it_makes_of_models(report: dict[str, Any]) -> None:
    for measured in report["speed"].values():
        assert measured["weights"] >= doctor.PROBE_BYTES * 0.8 and measured["n_threads"] >= 1
        assert measured["bytes_per_s"] > 0 and measured["macs_per_s"] > 0
    rows = report["expect"]
    assert {(r["model"], r["format"]) for r in rows} == {
        (m, f) for m in ("1B", "3B", "8B", "14B") for f in ("Q4_K", "Q8_0")
    }
    for row in rows:
        shape, measured = doctor.MODELS[row["model"]], report["speed"][row["format"]]
        assert row["weights"] == pytest.approx(shape.n_params * measured["bytes_per_weight"])
        assert row["fits"] == (row["weights"] < report["memory"]["available"])
        assert row["prefill_tps"] * shape.n_layer_params == pytest.approx(measured["macs_per_s"])
        read = row["weights"] - (0 if shape.tied else shape.n_head_params * measured["bytes_per_weight"])
        assert row["decode_tps"] * read == pytest.approx(measured["bytes_per_s"], rel=1e-6)


def test_text() -> None:
    done = small_doctor()
    assert done.stderr == "" and "WRONG" not in done.stdout
    for part in (
        "machine:\n",
        "  level used ",
        "  threads ",
        "against scalar:\n",
        " GB/s ",
        "  8B  ",
        " ok\n",
    ):
        assert part in done.stdout


def test_a_wrong_kernel_is_an_error() -> None:
    spoil = """
def spoilt(path, kv_dtype, exact, right=doctor.outputs):
    logits, drawn = right(path, kv_dtype, exact)
    if doctor.os.environ["PYLLAMA_ISA"] != "scalar" and path.stem == "Q8_0":
        logits[5, 7] += 0.05 * abs(logits).max()
    return logits, drawn
doctor.outputs = spoilt
"""
    if [name for name, runs in _core.levels() if runs] == ["scalar"]:
        pytest.skip("needs a level besides scalar")
    best = f"doctor.os.environ['PYLLAMA_ISA'] = {_core.Kernels().name!r}\n"
    done = small_doctor(before=best + spoil, code=1)
    assert done.stdout.count("WRONG") == 1
    assert done.stderr.startswith("pyllama: error: kernels of ")
    assert done.stderr.endswith("expected what scalar computes, found others for Q8_0 with f16 cache\n")


@pytest.mark.parametrize("spoil", ["a weight", "nan", "a token"])
def test_what_is_found_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spoil: str) -> None:
    right, calls = doctor.outputs, []

    def spoilt(path: Path, kv_dtype: str, exact: bool) -> tuple[np.ndarray, list[int]]:
        calls.append(path)
        if len(calls) == 1 and spoil == "a weight":
            path = tmp_path / "other.gguf"
            data = bytearray(calls[0].read_bytes())
            data[-1] ^= 2  # the exponent of one of 10^6
            path.write_bytes(data)
        logits, drawn = right(path, kv_dtype, exact)
        if len(calls) == 1 and spoil == "nan":
            logits[0, 0] = np.nan
        return logits, [0] if len(calls) == 1 and spoil == "a token" else drawn

    monkeypatch.setattr(doctor, "outputs", spoilt)
    assert next(doctor.self_test(_core.Kernels().name))["ok"] is False


def test_an_unknown_level() -> None:
    done = run("doctor", code=2, env={"PYLLAMA_ISA": "nonsense"})
    assert "PYLLAMA_ISA: expected one of scalar" in done.stderr and "found 'nonsense'" in done.stderr


# ---- what it is made of ----


def test_sizes_of_real_models() -> None:
    norms = {"1B": 33 * 2048, "8B": 65 * 4096}
    published = {"1B": 1_235_814_400, "8B": 8_030_261_248}
    for name, n in published.items():
        assert doctor.MODELS[name].n_params + norms[name] == n


@pytest.mark.parametrize("kind", list(_core.Kernels("scalar").formats))
def test_random_blocks(kind: str) -> None:
    kernels = _core.Kernels("scalar")
    blocks = random_blocks(kernels, kind)
    found = kernels.dequantize(kernels.formats[kind], blocks.ravel())
    largest = np.abs(found.reshape(len(blocks), -1)).max(1)
    assert len(blocks) == 512 and largest.min() > 2**-7 and largest.max() < 2**-3
    expected = gguf.dequantize(blocks, gguf.GGMLQuantizationType[kind]).ravel()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    if kind in ("Q8_0", "Q4_K"):
        assert len(np.unique(blocks[:, -16:])) == 256  # every code is there


def test_empty_models_take_no_disk(tmp_path: Path) -> None:
    path = tmp_path / "empty.gguf"
    shape = Shape(1024, 4096, 4, 16, 8, 64, 300, tied=False)
    write_model(path, shape, "Q8_0", None, n_ctx=32)
    stat = path.stat()
    assert stat.st_size > shape.n_params and stat.st_blocks * 512 < stat.st_size / 4
    tensors = gguf.GGUFReader(path).tensors
    assert sum(int(t.n_elements) for t in tensors if t.tensor_type.name == "Q8_0") == shape.n_params


def test_what_the_system_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"enabled": "always madvise [never]\n", "smaps_rollup": "Rss: 9 kB\nAnonHugePages:   2048 kB\n"}
    monkeypatch.setattr(cpu, "_read", lambda path: told.get(path.name, ""))
    assert (cpu.huge_pages(), cpu.huge_bytes()) == ("never", 2 << 20)
    told.clear()
    assert (cpu.huge_pages(), cpu.huge_bytes(), cpu.cache_bytes()) == (None, None, None)
    monkeypatch.setattr(cpu, "_affinity", lambda: 6)
    monkeypatch.setattr(cpu, "_physical_cores", lambda: 3)
    monkeypatch.setattr(cpu, "cpu_quota", lambda: 1.5)
    assert cpu.thread_limits() == {"physical cores": 3.0, "affinity": 6.0, "cgroup quota": 1.5}
    assert cpu.default_threads() == 1
