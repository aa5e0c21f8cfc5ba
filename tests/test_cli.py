"""The command line as users meet it: a child process, its stdout, its stderr, its exit code."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from clirun import COMMAND, ENV, ROOT, modules_after, on_terminal, run, start
from ggufwriter import write_gguf
from published import SHARED, needs_shared

import pyllama
from pyllama import SamplingParams
from pyllama.cli.run import command as run_command
from pyllama.cli.sampling_options import sampling_params
from pyllama.cli.tinymodel import KINDS, write_tiny_model

STORIES = SHARED / "stories260k"
SUMMARY = re.compile(
    r"pyllama: load [\d.]+ s \| prompt \d+ tokens?, [\d.]+ t/s \| generated \d+ tokens?(, [\d.]+ t/s)? "
    r"\| finish: \w+ \| [\w-]+, \d+ threads?\n"
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny_model(path)
    return path


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that could go on for minutes."""
    path = tmp_path_factory.mktemp("model") / "endless.gguf"
    write_tiny_model(path, n_ctx=200_000)
    return path


# ---- the whole ----


def test_version_and_help() -> None:
    assert run("--version").stdout == f"pyllama {pyllama.__version__}\n"
    commands = re.findall(r"^  (\w+)  ", run("--help").stdout, re.M)
    assert commands == ["run", "chat", "tokenize", "bench", "inspect", "doctor", "pull", "ls", "tiny"]
    for name in commands:
        assert f"pyllama {name}" in run(name, "--help").stdout
    assert "Commands:" in run(code=2).stderr


def test_nothing_heavy_is_imported_early() -> None:
    for args in (["--version"], ["--help"], ["run", "--help"], ["bench", "--help"], ["inspect", "--help"]):
        assert {"rich", "pyllama._core"}.isdisjoint(modules_after(*args))
    assert "numpy" not in modules_after("--version")


# ---- tiny ----


def test_tiny_writes_a_model_and_overwrites_none(tmp_path: Path) -> None:
    first, second = tmp_path / "1.gguf", tmp_path / "2.gguf"
    done = run("tiny", first)
    assert done.stdout == "" and "run -m" in done.stderr
    write_tiny_model(second)
    assert first.read_bytes() == second.read_bytes()
    assert run("tiny", first, code=1).stderr == f"pyllama: error: {first}: File exists\n"
    run("tiny", first, "--force", "--seed", "1")
    assert first.read_bytes() != second.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [False, True])
def test_tiny_model_is_what_other_readers_read(tmp_path: Path, kind: str, tied: bool) -> None:
    import gguf

    path = tmp_path / "tiny.gguf"
    write_tiny_model(path, kind=kind, tied=tied)
    reader = gguf.GGUFReader(path)
    types = {t.name: t.tensor_type.name for t in reader.tensors}
    assert types.pop("output_norm.weight") == "F32"
    assert types["token_embd.weight"] == types["blk.1.ffn_down.weight"] == kind
    assert ("output.weight" in types) != tied
    embedding = next(t for t in reader.tensors if t.name == "token_embd.weight")
    values = gguf.dequantize(embedding.data, embedding.tensor_type).reshape(-1, 64)
    assert len(values) == len(reader.get_field("tokenizer.ggml.tokens").data)
    assert abs(values[:, 0] - 8.0).max() < 0.05 and 0.9 < values[:, 1:].std() < 1.1


# ---- run ----


def test_run_prints_text_alone(tiny: Path) -> None:
    args = ("run", "-m", tiny, "-p", "hello", "-n", "20", "-s", "7", "-t", "1")
    done = run(*args)
    assert SUMMARY.fullmatch(done.stderr)
    assert "generated 20 tokens" in done.stderr and "1 thread\n" in done.stderr
    assert done.stdout.endswith("\n") and len(done.stdout.split()) >= 10
    quiet = run(*args, "-q")
    assert (quiet.stdout, quiet.stderr) == (done.stdout, "")


def test_run_json(tiny: Path) -> None:
    args = ("run", "-m", tiny, "-p", "hello", "-n", "20", "-s", "7", "-t", "1")
    result = json.loads(run(*args, "-o", "json").stdout)
    assert result["text"] + "\n" == run(*args).stdout
    assert (result["finish_reason"], result["seed"], result["n_threads"]) == ("length", 7, 1)
    assert len(result["token_ids"]) == 20 == result["timings"]["n_generated"]
    assert len(result["prompt_token_ids"]) == result["timings"]["n_prompt"]
    times = result["timings"]
    assert all(times[name] > 0 for name in ("load_s", "prefill_s", "decode_s", "prefill_tps", "decode_tps"))


def test_run_tells_the_seed_it_drew(tiny: Path) -> None:
    args = ("run", "-m", tiny, "-p", "", "-n", "20", "-t", "1", "-o", "json")
    first = json.loads(run(*args).stdout)
    again = json.loads(run(*args, "-s", str(first["seed"])).stdout)
    assert again["text"] == first["text"]


def test_run_prompt_from_file_and_stdin(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("grüße 世界\n\n", encoding="utf-8")
    args = ("run", "-m", tiny, "-n", "8", "-t", "1", "--temp", "0")
    expected = run(*args, "-p", "grüße 世界\n").stdout
    assert run(*args, "-f", file).stdout == expected
    assert run(*args, "-f", "-", stdin="grüße 世界\n\n").stdout == expected
    file.write_bytes(b"\xff")
    assert "expected UTF-8" in run(*args, "-f", file, code=1).stderr


def test_run_options_reach_the_engine(tiny: Path) -> None:
    args = ("run", "-m", tiny, "-p", "x", "-t", "1", "-s", "1")
    whole = run(*args, "-n", "-1", "-c", "40").stdout
    assert run(*args, "-c", "40").stdout == whole
    stop = whole.split()[3]
    assert run(*args, "-c", "40", "--stop", "no such", "--stop", stop).stdout == whole.split(stop)[0] + "\n"
    greedy = run(*args, "--temp", "0", "-n", "9").stdout
    for same in (["--top-k", "1"], ["--top-p", "0.000001"], ["--min-p", "1"]):
        assert run(*args, "-n", "9", *same).stdout == greedy
    for same in (["-ub", "2"], ["--no-hugepages"], ["--ignore-eos"]):
        assert run(*args, "--temp", "0", "-n", "9", *same).stdout == greedy
    for other in (["-ctk", "f32"], ["--compute", "f32"]):
        assert len(run(*args, "--temp", "0", "-n", "9", *other).stdout) > 9


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], {}),
        (["--typical", "0.9"], {"typical_p": 0.9}),
        (
            ["--repeat-penalty", "1.1", "--repeat-last-n", "64"],
            {"repetition_penalty": 1.1, "repeat_last_n": 64},
        ),
        (["--frequency-penalty", "-.5"], {"frequency_penalty": -0.5}),
        (["--presence-penalty", "2"], {"presence_penalty": 2.0}),
        (["-l", "5+1.5", "--logit-bias", "6-2", "-l", "7=-3"], {"logit_bias": {5: 1.5, 6: -2.0, 7: -3.0}}),
        (
            ["--allowed-token-ids", "5,7-9", "--allowed-token-ids", "3"],
            {"allowed_token_ids": (5, 7, 8, 9, 3)},
        ),
        (["--banned-token-ids", "0"], {"banned_token_ids": (0,)}),
        (
            ["--stop-token-ids", "13", "--include-stop"],
            {"stop_token_ids": (13,), "include_stop_str_in_output": True},
        ),
        (["--min-tokens", "4", "--stop", "x"], {"min_tokens": 4, "stop": ("x",)}),
        (["--logprobs", "3"], {"logprobs": 3}),
    ],
)
def test_run_sampling_options(args: list[str], expected: dict[str, object]) -> None:
    given = run_command.make_context("run", ["-m", "x", "-p", "", "-s", "1", *args]).params
    names = {f.name for f in dataclasses.fields(SamplingParams)}
    found = sampling_params({name: value for name, value in given.items() if name in names})
    assert found == SamplingParams(**({"seed": 1, "stop": ()} | expected))


def test_run_shows_logprobs(tiny: Path) -> None:
    args = ("run", "-m", tiny, "-p", "hello", "-n", "6", "-s", "7", "-t", "1", "-o", "json")
    plain = json.loads(run(*args).stdout)
    result = json.loads(run(*args, "--logprobs", "2").stdout)
    assert "logprobs" not in plain and plain["token_ids"] == result["token_ids"]
    with pyllama.LLM(tiny, n_threads=1) as llm:
        out = llm.generate("hello", max_tokens=6, seed=7, logprobs=2)[0].outputs[0]
    assert result["cumulative_logprob"] == out.cumulative_logprob and out.logprobs is not None
    expected = [{str(t): dataclasses.asdict(p) for t, p in row.items()} for row in out.logprobs]
    assert result["logprobs"] == expected


@needs_shared
def test_run_tells_a_story() -> None:
    args = ("run", "-m", STORIES / "stories260k-f32.gguf", "-p", "", "--temp", "0", "-n", "200")
    expected = (STORIES / "expected.txt").read_text(encoding="utf-8")
    assert run(*args).stdout.startswith(expected.rstrip("\n"))


def test_a_bar_shows_long_loading(tiny: Path) -> None:
    code = (
        "import sys; from pyllama.cli import common, main; common.BAR_AFTER = float(sys.argv[1]); "
        "main(['run', '-m', sys.argv[2], '-p', '', '-n', '1', '-t', '1'])"
    )
    bar = b"loading tiny.gguf"
    assert bar in on_terminal(sys.executable, "-c", code, "0", str(tiny))[1]
    out, shown = on_terminal(sys.executable, "-c", code, "60", str(tiny))
    assert bar not in out + shown and SUMMARY.fullmatch(shown.decode().replace("\r\n", "\n"))


# ---- errors ----


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["run", "-m", "nope.gguf", "-p", ""], 1, "nope.gguf: No such file or directory"),
        (["run", "-m", "", "-p", ""], 2, "expected a path or a name of the hub, found an empty string"),
        (["run", "-m", "MODEL", "-f", "nope.txt"], 1, "nope.txt: No such file or directory"),
        (["run", "-m", str(ROOT), "-p", ""], 1, "config.json: No such file or directory"),
        (["run", "-m", __file__, "-p", ""], 1, "expected b'GGUF'"),
        (["run", "-m", "MODEL", "-p", "a b " * 300], 1, "prompt: expected at most 255 tokens"),
        (["run", "-m", "MODEL", "-p", "", "-c", "100000"], 2, "--ctx-size: expected 1 to 256"),
        (["run", "-m", "MODEL", "-p", "", "--temp", "-1"], 2, "--temp: expected"),
        (["run", "-m", "MODEL", "-p", "", "--stop", ""], 2, "--stop: expected non-empty"),
        (["run", "-m", "MODEL", "-p", "", "--stop", "a\udcff"], 2, "--stop: expected text"),
        (["run", "-m", "MODEL", "-p", "", "-n", "0"], 2, "--n-predict: expected 1"),
        (["run", "-m", "MODEL", "-p", "", "-n", "x"], 2, "-n"),
        (["run", "-m", "MODEL", "-p", "", "-l", "5"], 2, "expected a token id and a number"),
        (["run", "-m", "MODEL", "-p", "", "-l", "5+x"], 2, "expected a token id and a number"),
        (["run", "-m", "MODEL", "-p", "", "-l", "5-inf"], 2, "--logit-bias[5]: expected a number from -100"),
        (["run", "-m", "MODEL", "-p", "", "-l", "5+1", "-l", "5+2"], 2, "expected one number for token 5"),
        (["run", "-m", "MODEL", "-p", "", "-l", "99999+1"], 2, "--logit-bias: expected token ids from 0 to"),
        (["run", "-m", "MODEL", "-p", "", "--repeat-penalty", "0"], 2, "--repeat-penalty: expected"),
        (["run", "-m", "MODEL", "-p", "", "--logprobs", "1"], 2, "--logprobs: expected -o json"),
        (["run", "-m", "MODEL", "-p", "", "--frobnicate"], 2, "--frobnicate"),
        (["run", "-m", "MODEL", "-p", "", "-f", "-"], 2, "expected one of -p and -f"),
        (["run", "-m", "MODEL"], 2, "expected one of -p and -f"),
        (["frobnicate"], 2, "frobnicate"),
        (["bench", "-m", "nope.gguf", "-o", "json"], 1, "nope.gguf: No such file or directory"),
        (["bench", "-m", "MODEL", "-p", "1000"], 2, "n_ctx: expected 1 to 256"),
        (["bench", "-m", "MODEL", "-p", "0", "-n", "0"], 2, "expected a test"),
        (["bench", "-m", "MODEL", "-p", "5-"], 2, "expected numbers >= 0"),
        (["bench", "-m", "MODEL", "-npl", "0"], 2, "expected numbers >= 1"),
        (["bench", "-m", "MODEL", "-p", "8", "-npl", "2"], 2, "expected -p or -npl, found both"),
        (["bench", "-m", "MODEL", "-pg", "7"], 2, "expected two numbers"),
        (["bench", "-m", "MODEL", "-ctk", "f16,q9"], 2, "found 'q9'"),
        (["inspect", "-m", "nope.gguf"], 1, "nope.gguf: No such file or directory"),
        (["inspect", "-m", __file__], 1, "expected b'GGUF'"),
        (["inspect", "-m", "MODEL", "-c", "257"], 2, "--ctx-size: expected 1 to 256"),
    ],
)
def test_errors_are_one_line(tiny: Path, args: list[str], code: int, message: str) -> None:
    done = run(*(str(tiny) if a == "MODEL" else a for a in args), code=code)
    first, *hint = done.stderr.splitlines()
    assert first.startswith("pyllama: error: ") and message in first
    assert not hint if code == 1 else re.fullmatch(r"Try 'pyllama( \w+)? --help'\.", hint[0])
    assert done.stdout == ""


def test_a_prompt_that_is_no_text(tiny: Path) -> None:
    done = subprocess.run([*COMMAND, "run", "-m", tiny, "-p", b"a\xff"], capture_output=True, env=ENV)
    assert done.returncode == 1
    assert done.stderr == b"pyllama: error: -p: expected UTF-8, found invalid start byte at 1\n"


def test_a_closed_stdout_is_said(tiny: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *COMMAND, "run", "-m", tiny, "-p", "a"],
        stderr=subprocess.PIPE,
        env=ENV,
    )
    assert done.returncode == 1
    assert done.stderr == b"pyllama: error: stdout: expected an open file, found none\n"


@pytest.mark.parametrize("command", [("chat",), ("run", "-f", "-"), ("tokenize", "-f", "-")])
def test_a_closed_stdin_is_said(tiny: Path, command: tuple[str, ...]) -> None:
    line = ["sh", "-c", '"$@" <&-', "sh", *COMMAND, *command, "-m", tiny]
    done = subprocess.run(line, capture_output=True, env=ENV)
    assert done.returncode == 1 and done.stdout == b""
    assert done.stderr == b"pyllama: error: stdin: expected an open file, found none\n"


@pytest.mark.parametrize(
    "command",
    [("run", "-p", "a", "-n", "4"), ("tokenize", "-p", "a"), ("inspect",), ("bench", "-p8", "-n8", "-r1")],
)
def test_a_closed_stderr_costs_no_result(tiny: Path, command: tuple[str, ...]) -> None:
    line = ["sh", "-c", '"$@" 2>&-', "sh", *COMMAND, *command, "-m", tiny]
    done = subprocess.run(line, stdout=subprocess.PIPE, env=ENV)
    assert done.returncode == 0 and done.stdout


# ---- a reader that goes away, and Ctrl-C ----


def test_broken_pipe_is_quiet(endless: Path) -> None:
    child = start("run", "-m", endless, "-p", "", "--ignore-eos", "-t", "1")
    assert child.stdout is not None and child.stderr is not None
    assert child.stdout.read(1)
    child.stdout.close()
    assert child.stderr.read() == b""
    assert child.wait(30) == 141


def test_interrupt_keeps_the_text(endless: Path) -> None:
    child = start("run", "-m", endless, "-p", "", "--ignore-eos", "-t", "1")
    assert child.stdout is not None
    first = child.stdout.read(1)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert (first + out).endswith(b"\n") and len(first + out) > 2
    assert SUMMARY.fullmatch(err.decode()) and b"finish: cancelled" in err


# ---- inspect ----


def test_inspect_text(tiny: Path) -> None:
    text = run("inspect", "-m", tiny, "--metadata", "--tensors", "--program").stdout
    for line in (
        "  architecture  llama",
        "  n_layers    2",
        "  bos         id 1, piece <s>",
        "  general.name                            tiny random model",
    ):
        assert line in text.splitlines()
    assert re.search(r"^  tokenizer.ggml.tokens .*<unk>, <s>, </s>, <0x00>, .* of \d{3}$", text, re.M)
    assert re.search(r"^  blk.1.ffn_down.weight +F32 +64 x 128 ", text, re.M)
    assert re.search(r"^  : MATMUL_SWIGLU +tokens +64 -> 128 +blk.0.ffn_gate.weight blk.0.ffn_up", text, re.M)
    assert "all threads wait" in text


def test_inspect_json(tiny: Path) -> None:
    args = ("inspect", "-m", tiny, "--json", "--metadata", "--tensors", "--program")
    report = json.loads(run(*args, "-c", "100").stdout)
    assert report["config"]["dim"] == 64 and report["file"]["size"] == tiny.stat().st_size
    assert report["file"]["n_params"] * 4 == sum(t["nbytes"] for t in report["tensors"])
    assert report["metadata"]["tokenizer.ggml.scores"]["length"] == report["tokenizer"]["vocab_size"]
    memory = report["memory"]
    assert memory["n_ctx"] == 100
    assert memory["weights"] + memory["kv"] + memory["workspace"] == memory["total"]
    double = json.loads(run(*args, "-c", "100", "-ctk", "f32").stdout)["memory"]
    assert double["kv_bytes_per_token"] == 2 * memory["kv_bytes_per_token"]


def test_inspect_shows_what_cannot_run(tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    write_gguf(path, [("general.architecture", "str", "strange"), ("a\x1b[31m", "f32", float("nan"))])
    text = run("inspect", "-m", path, "--metadata", "--tensors", "--program").stdout
    assert "no tensors" in text and "\x1b" not in text and r"a\x1b[31m" in text
    report = json.loads(run("inspect", "-m", path, "--metadata", "--program", "--json").stdout)
    assert report["metadata"]["a\x1b[31m"] == "nan" and report["program"] == []
    write_gguf(path, [("general.architecture", "str", "strange")], [("w", [4], 0, bytes(16))])
    assert "found 'strange'" in run("inspect", "-m", path).stdout


@needs_shared
def test_inspect_vocabularies() -> None:
    paths = sorted((SHARED / "vocab").glob("*.gguf"))
    assert paths
    for path in paths:
        assert "no tensors: a vocabulary" in run("inspect", "-m", path, "--metadata", "--program").stdout
