"""`pyllama pull` and `pyllama ls` with a stand-in for the hub: output, exit codes, environment."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clirun import COMMAND, modules_after, on_terminal, run, start
from hubserver import TOKEN, HubServer, Repo

from pyllama.cli.tinymodel import write_tiny_model

BIG = os.urandom(400_000)
FOLDER = {"config.json": b"{}", "tokenizer.model": b"t", "model.safetensors": b"w" * 5000}
SHARDS = {f"b-Q8_0-{i:05}-of-00002.gguf": bytes([i]) * 3000 for i in (1, 2)}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny_model(path)
    return path.read_bytes()


@pytest.fixture
def hub(tiny: bytes) -> Iterator[HubServer]:
    repos = {
        "org/tiny-GGUF": Repo({"tiny-Q4_K_M.gguf": BIG, "tiny-F32.gguf": tiny, **SHARDS}),
        "org/folder": Repo(dict(FOLDER)),
    }
    with HubServer(repos) as server:
        yield server


@pytest.fixture
def env(hub: HubServer, tmp_path: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "",
        "NO_PROXY": "127.0.0.1,localhost",
    }


def test_pull_prints_the_path_alone(hub: HubServer, env: dict[str, str], tmp_path: Path, tiny: bytes) -> None:
    done = run("pull", "org/tiny-GGUF:f32", env=env)
    path = Path(done.stdout.removesuffix("\n"))
    assert path.is_relative_to(tmp_path / "cache") and path.read_bytes() == tiny and done.stderr == ""
    assert "pyllama: load" in run("run", "-m", path, "-p", "", "-n", "1").stderr  # by its name in the cache
    folder = run("pull", "org/folder:Q8_0", env=env)
    assert sorted(p.name for p in Path(folder.stdout.strip()).iterdir()) == sorted(FOLDER)
    assert "q8_0 is what the weights become" in folder.stderr
    assert run("pull", "-q", "org/folder:q8_0", env=env).stderr == ""


def test_pull_says_what_it_took(hub: HubServer, env: dict[str, str]) -> None:
    del hub.repos["org/tiny-GGUF"].files["tiny-Q4_K_M.gguf"]
    assert run("pull", "org/tiny-GGUF", env=env).stderr == "org/tiny-GGUF: no Q4_K_M, taking Q8_0\n"


def test_pull_uses_the_environment(hub: HubServer, env: dict[str, str], tmp_path: Path) -> None:
    hub.repos["org/folder"].gated = 403
    assert "set HF_TOKEN" in run("pull", "org/folder", code=1, env=env).stderr
    online = run("pull", "org/folder", env=env | {"HF_TOKEN": TOKEN}).stdout
    asked = len(hub.requests)
    offline = env | {"HF_HUB_OFFLINE": "1"}
    assert run("pull", "org/folder", env=offline).stdout == online
    error = run("pull", "org/tiny-GGUF", code=1, env=offline).stderr
    assert "org/tiny-GGUF" in error and "HF_HUB_OFFLINE is set: unset it" in error
    assert len(hub.requests) == asked and not hub.leaked
    home = {name: value for name, value in env.items() if name != "HF_HUB_CACHE"}
    assert str(tmp_path / "home" / "hub") in run("pull", "org/tiny-GGUF:f32", env=home).stdout


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("nonsense", 2, "name: expected org/repo[:quant][@revision], found 'nonsense'"),
        ("./org/tiny", 2, "name: expected org/repo"),
        ("org/nope", 1, "org/nope: not found on http://"),
        ("org/tiny-GGUF:Q2_K", 1, "org/tiny-GGUF: quant: expected one of Q8_0, F32, Q4_K_M, found 'Q2_K'"),
    ],
)
def test_pull_errors(env: dict[str, str], name: str, code: int, message: str) -> None:
    done = run("pull", name, code=code, env=env)
    assert done.stderr.startswith("pyllama: error: ") and message in done.stderr and done.stdout == ""
    assert len(done.stderr.splitlines()) == code


def test_ctrl_c_keeps_what_came(hub: HubServer, env: dict[str, str], tmp_path: Path) -> None:
    hub.faults.slow = 0.05
    child = start("pull", "org/tiny-GGUF", env=env)
    until = time.monotonic() + 60
    while not any(p.stat().st_size for p in tmp_path.rglob("*.incomplete")):
        assert child.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=60)[0] == b"" and child.returncode == 130
    assert not list(tmp_path.rglob("snapshots/*/*"))
    hub.faults.slow = 0.0
    hub.requests.clear()
    path = run("pull", "org/tiny-GGUF", env=env).stdout.strip()
    assert Path(path).read_bytes() == BIG and None not in hub.bodies("tiny-Q4_K_M.gguf")


def test_a_bar_on_a_terminal(hub: HubServer, env: dict[str, str]) -> None:
    hub.faults.slow = 0.05  # a second in all
    out, shown = on_terminal(*COMMAND, "pull", "org/tiny-GGUF", env=env)
    assert out.endswith(b".gguf\n")
    assert b"pulling org/tiny-GGUF" in shown and re.search(rb"\d+(\.\d)?/400\.0 kB", shown)
    assert on_terminal(*COMMAND, "pull", "-q", "org/tiny-GGUF:q8_0", env=env)[1] == b""


def test_ls(hub: HubServer, env: dict[str, str], tmp_path: Path) -> None:
    assert "cache" in run("ls", code=1, env=env | {"HF_HUB_CACHE": __file__}).stderr
    assert run("ls", env=env).stdout == "" and run("ls", "-o", "json", env=env).stdout == "[]\n"
    paths = [
        run("pull", name, env=env).stdout.strip()
        for name in ("org/folder", "org/tiny-GGUF", "org/tiny-GGUF:q8_0")
    ]
    rows = json.loads(run("ls", "-o", "json", env=env).stdout)
    assert [(r["name"], r["size"], r["files"], r["complete"]) for r in rows] == [
        ("org/folder", sum(map(len, FOLDER.values())), 3, True),
        ("org/tiny-GGUF:Q8_0", 6000, 2, True),
        ("org/tiny-GGUF:Q4_K_M", len(BIG), 1, True),
    ]
    assert {r["path"] for r in rows} == set(paths)
    for row in rows:  # a name that is listed is a name that is found
        offline = run("pull", row["name"], env=env | {"HF_HUB_OFFLINE": "1"})
        assert offline.stdout.strip() == row["path"]
    text = run("ls", env=env).stdout
    assert re.search(r"org/tiny-GGUF:Q8_0 +0\.01 MiB +2 +/", text) and "incomplete" not in text
    Path(rows[1]["path"]).unlink()
    (Path(rows[0]["path"]) / "tokenizer.model").unlink()
    assert run("ls", env=env).stdout.count("incomplete") == 2


def test_ls_of_two_commits(hub: HubServer, env: dict[str, str]) -> None:
    run("pull", "org/tiny-GGUF", env=env)
    hub.repos["org/tiny-GGUF"].files["tiny-Q4_K_M.gguf"] = b"new"
    run("pull", "org/tiny-GGUF", env=env)
    hub.repos["org/tiny-GGUF"].files["README.md"] = b"nothing of this changes a model"
    run("pull", "org/tiny-GGUF", env=env)
    rows = json.loads(run("ls", "-o", "json", env=env).stdout)
    assert [r["size"] for r in rows] == [3, len(BIG)]
    assert rows[0]["name"] == "org/tiny-GGUF:Q4_K_M"
    assert rows[1]["name"] == f"org/tiny-GGUF:Q4_K_M@{rows[1]['revision']}"
    assert run("pull", rows[1]["name"], env=env | {"HF_HUB_OFFLINE": "1"}).stdout.strip() == rows[1]["path"]


def test_the_hub_is_imported_by_those_who_need_it() -> None:
    for args in (["--help"], ["pull", "--help"], ["ls", "--help"], ["run", "--help"]):
        assert "huggingface_hub.constants" not in modules_after(*args)
