"""`pyllama bench`: its rows, and that it times what it says."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clirun import run, start

import pyllama
from pyllama.cli import measure
from pyllama.cli.options import Integers
from pyllama.cli.tinymodel import write_tiny_model

SPEED_MD = re.compile(r"\| +[\d.]+ MiB \| +[\d.]+ M \| CPU +\| +1 \| +(\S.*?) \| +[\d.]+ ± [\d.]+ \|$")
BENCH = ("-p", "8", "-n", "4", "-r", "2", "-t", "1")
FIELDS = {
    "build_commit", "cpu_info", "backends", "model_filename", "model_type", "model_size", "model_n_params",
    "n_batch", "n_ubatch", "n_threads", "type_k", "type_v", "n_prompt", "n_gen", "n_depth", "test_time",
    "avg_ns", "stddev_ns", "avg_ts", "stddev_ts", "isa", "compute",
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny_model(path)
    return path


def rows_of(output: str, text: str) -> list[dict[str, Any]]:
    """The rows of bench in any format but md."""
    if output == "csv":
        return list(csv.DictReader(io.StringIO(text)))
    return json.loads(text) if output == "json" else [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("output", ["json", "jsonl", "csv"])
def test_bench_rows(tiny: Path, output: str) -> None:
    done = run("bench", "-m", tiny, *BENCH, "-o", output)
    assert done.stderr == ""
    rows = rows_of(output, done.stdout)
    assert [(int(r["n_prompt"]), int(r["n_gen"]), int(r["n_depth"])) for r in rows] == [(8, 0, 0), (0, 4, 0)]
    for row in rows:
        assert set(row) >= FIELDS and row["model_filename"] == str(tiny) and row["backends"] == "CPU"
        assert float(row["avg_ts"]) > 0 and float(row["stddev_ts"]) >= 0
        if output != "csv":
            tokens = row["n_prompt"] + row["n_gen"]
            assert row["samples_ts"] == [1e9 * tokens / ns for ns in row["samples_ns"]]
            assert len(row["samples_ns"]) == 2
            assert row["avg_ts"] == pytest.approx(sum(row["samples_ts"]) / 2)


def test_bench_table(tiny: Path) -> None:
    lines = run("bench", "-m", tiny, *BENCH, "-d", "0,16", "-pg", "8,4").stdout.splitlines()
    titles = [cell.strip() for cell in lines[0].strip("|").split("|")]
    assert titles == ["model", "size", "params", "backend", "threads", "test", "t/s"]
    assert re.fullmatch(r"(\| :?-+:? )+\|", lines[1])
    found = [SPEED_MD.search(line) for line in lines[2:-2]]
    names = ["pp8", "tg4", "pp8+tg4"]
    assert [m and m[1] for m in found] == names + [f"{n} @ d16" for n in names]
    assert re.fullmatch(rf"build: pyllama {re.escape(pyllama.__version__)} \([\w-]+\)", lines[-1])


def test_bench_lists_multiply(tiny: Path) -> None:
    args = ("-p", "4,8", "-p", "16", "-n", "0", "-t", "1,2", "-ub", "4,8", "-ctk", "f16,f32", "-r", "1")
    rows = rows_of("jsonl", run("bench", "-m", tiny, *args, "-o", "jsonl").stdout)
    found = [(r["n_ubatch"], r["type_k"], r["n_threads"], r["n_prompt"]) for r in rows]
    assert found == [(u, k, t, p) for u in (4, 8) for k in ("f16", "f32") for t in (1, 2) for p in (4, 8, 16)]


@pytest.mark.parametrize("output", ["md", "json", "jsonl", "csv"])
def test_bench_batches(tiny: Path, output: str) -> None:
    done = run("bench", "-m", tiny, "-npp", "8,16", "-ntg", "4", "-npl", "1,3", "-t", "1", "-o", output)
    if output == "md":
        lines = [line.strip("|").split("|") for line in done.stdout.splitlines()[:-2]]
        head = [cell.strip() for cell in lines[0]]
        assert head == ["PP", "TG", "B", "N_KV", "T_PP s", "S_PP t/s", "T_TG s", "S_TG t/s", "T s", "S t/s"]
        found = [tuple(int(cell) for cell in line[:4]) for line in lines[2:]]
    else:
        rows = rows_of(output, done.stdout)
        found = [tuple(int(r[name]) for name in ("pp", "tg", "pl", "n_kv")) for r in rows]
        for r in rows:
            pp, tg, pl, t_pp, t_tg = (float(r[name]) for name in ("pp", "tg", "pl", "t_pp", "t_tg"))
            assert float(r["speed_pp"]) == pytest.approx(pp * pl / t_pp)
            assert float(r["speed_tg"]) == pytest.approx(tg * pl / t_tg)
            assert float(r["speed"]) == pytest.approx((pp + tg) * pl / (t_pp + t_tg))
    assert found == [(8, 4, 1, 12), (8, 4, 3, 36), (16, 4, 1, 20), (16, 4, 3, 60)]


def test_interrupted_bench_keeps_its_rows(tmp_path: Path) -> None:
    endless = tmp_path / "endless.gguf"
    write_tiny_model(endless, n_ctx=200_000)
    args = ("-p", "0", "-n", "64,150000", "-r", "1", "-t", "1", "-o", "json")
    child = start("bench", "-m", endless, *args)
    assert child.stdout is not None
    first = child.stdout.read(10)  # the first row is out, the second will take long
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (130, b"")
    assert [row["n_gen"] for row in json.loads(first + out)] == [64]


Steps = Callable[..., tuple[list[list[int]], float]]


@pytest.fixture
def steps_of(tiny: Path) -> Steps:
    """What the engine computes while a test is timed: rows per sequence of each forward."""

    def steps(chunk: int, test: measure.Test | measure.BatchTest) -> tuple[list[list[int]], float]:
        many = isinstance(test, measure.BatchTest)
        n_ctx, max_batch = (test.n_ctx(chunk), test.pl) if many else (test.n_ctx, 1)
        seen: list[list[int]] = []
        with pyllama.LLM(
            tiny, n_threads=1, n_ctx=n_ctx, prefill_chunk=chunk, max_batch=max_batch, prefix_cache=False
        ) as llm:  # fmt: skip
            schedule = llm._engine._schedule

            def watched() -> Any:
                plan = schedule()
                if plan:
                    seen.append([count for _, count in plan])
                return plan

            llm._engine._schedule = watched
            seconds = sum(measure.time_batch(llm, test)) if many else measure.time_test(llm, test)
        return seen, seconds

    return steps


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (measure.Test(20, 0, 0), [[16], [4]]),
        (measure.Test(0, 3, 0), [[1], [1], [1], [1]]),  # the first is read, three are timed
        (measure.Test(8, 0, 20), [[16], [4], [8]]),
        (measure.Test(0, 2, 20), [[16], [4], [1], [1]]),
        (measure.Test(20, 2, 0), [[16], [4], [1], [1]]),
        (measure.Test(4, 1, 1), [[1], [4], [1]]),
        (measure.BatchTest(4, 2, 3), [[4, 4, 4], [1, 1, 1], [1, 1, 1]]),
        (measure.BatchTest(16, 2, 3), [[16], [1, 16], [1, 1, 16], [1, 1, 1], [1, 1, 1]]),
        (measure.BatchTest(17, 1, 2), [[16], [1, 16], [1, 1], [1, 1]]),
        (measure.BatchTest(1, 2, 2), [[1, 1], [1, 1], [1, 1]]),
    ],
)
def test_bench_times_what_it_says(steps_of: Steps, test: Any, expected: list[list[int]]) -> None:
    steps, seconds = steps_of(16, test)
    assert steps == expected and seconds > 0


def test_batch_context_is_enough(steps_of: Steps) -> None:
    for test in (measure.BatchTest(40, 5, 7), measure.BatchTest(3, 1, 11), measure.BatchTest(33, 2, 4)):
        steps, _ = steps_of(16, test)
        assert steps[-test.tg :] == [[1] * test.pl] * test.tg
        assert sum(map(sum, steps)) >= test.pl * (test.pp + test.tg)


def test_integers() -> None:
    kind = Integers()
    for text, expected in (
        ("512", (512,)),
        ("1,2,4", (1, 2, 4)),
        ("1-4", (1, 2, 3, 4)),
        ("0-64+32", (0, 32, 64)),
        ("1-8*2,3", (1, 2, 4, 8, 3)),
    ):
        assert kind.convert(text, None, None) == expected
    for text in ("", "x", "-1", "4-1", "1-", "0-8*2", "1-8*1", "1-8+0", "1-99999", "1.5"):
        with pytest.raises(Exception, match="expected numbers >= 0"):
            kind.convert(text, None, None)


def test_bench_says_what_each_op_takes(tiny: Path) -> None:
    args = ("-p", "0", "-n", "4", "-r", "2", "-t", "1", "--profile")
    [row] = rows_of("json", run("bench", "-m", tiny, *args, "-o", "json").stdout)
    ops = {op["op"]: op for op in row["profile"]}
    down = ops["MATMUL_ADD ffn_down"]
    forwards = 2 * (4 + 1)  # repetitions, of four tokens after one
    assert down["runs"] == 2 * forwards  # layers
    assert down["macs"] == down["runs"] * 64 * 128 and down["n_bytes"] >= down["runs"] * 64 * 128
    assert ops["SAMPLE"]["runs"] == forwards and ops["SAMPLE"]["macs"] == 0
    assert all(op["seconds"] > 0 for op in ops.values()) and down["least"] > 0
    total = 1e9 * sum(op["seconds"] for op in ops.values())
    assert total < 2 * sum(row["samples_ns"])  # what is read before the clock starts counts, too

    text = run("bench", "-m", tiny, *BENCH, "--profile").stdout
    assert "\npp8: us per run" in text and "\ntg4: us per run" in text
    assert re.search(r"\| MATMUL_ADD ffn_down +\| +\d+ \|( +[\d.]+ (% )?\|){5}\n", text)


def test_bench_refuses_to_profile_batches(tiny: Path) -> None:
    done = run("bench", "-m", tiny, "-npl", "2", "--profile", code=2)
    assert "expected -npl or --profile, found both" in done.stderr
