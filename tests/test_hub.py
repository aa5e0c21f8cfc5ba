"""Models of the hub: names, the choice of files, and downloads from a stand-in under every fault."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hubserver import TOKEN, HubServer, Repo

from pyllama import HubError, hub_fetch
from pyllama.hub import HubModel, HubName, is_hub_name, resolve
from pyllama.hub_files import choose, gguf_models

Q4, Q8 = os.urandom(200_000), os.urandom(50_000)
GGUF = {
    "README.md": b"a model",
    "a-Q4_K_M.gguf": Q4,
    "a-Q8_0.gguf": Q8,
    "a-imatrix.gguf": b"i",
    "mmproj-a-f16.gguf": b"p",
}
FOLDER = {
    "config.json": b'{"model_type": "llama"}',
    "generation_config.json": b"{}",
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b'{"a": 1}',
    "model.safetensors": Q8,
    "consolidated.safetensors": b"twice",
    "pytorch_model.bin": b"a pickle",
    "onnx/model.onnx": b"another",
}
SHARDS = tuple(f"model-{i:05}-of-00002.safetensors" for i in (1, 2))
INDEX = b'{"weight_map": {"x": "%s", "y": "%s", "z": "%s"}}' % tuple(s.encode() for s in (*SHARDS, SHARDS[0]))

Resolve = Callable[..., HubModel]


@pytest.fixture
def hub() -> Iterator[HubServer]:
    repos = {
        "org/a-GGUF": Repo(dict(GGUF), tags=("v1",)),
        "org/folder": Repo(dict(FOLDER)),
        "org/data": Repo({"a.csv": b"1"}, kind="datasets"),
    }
    with HubServer(repos) as server:
        yield server


@pytest.fixture
def get(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """resolve() with that hub and a fresh cache."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(hub_fetch, "WAITS", (0.0, 0.0))
    return lambda name, progress=None: resolve(name, progress, endpoint=hub.url, cache_dir=tmp_path / "cache")


def left_over(tmp_path: Path) -> dict[str, int]:
    """Unfinished and finished files of the cache, by folder."""
    files = [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    kinds = {"incomplete": 0, "blobs": 0, "snapshots": 0}
    for p in files:
        if p.suffix == ".incomplete":
            kinds["incomplete"] += 1
        else:
            for kind in ("blobs", "snapshots"):
                kinds[kind] += kind in p.parts
    return kinds


# ---- names ----


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/repo", HubName("org/repo")),
        ("org/repo:Q4_K_M", HubName("org/repo", "Q4_K_M")),
        ("hf.co/org/repo-GGUF:q8_0", HubName("org/repo-GGUF", "q8_0")),
        ("https://huggingface.co/org/repo", HubName("org/repo")),
        ("org/repo@v1:Q8_0", HubName("org/repo", "Q8_0", "v1")),
        ("org/repo:Q8_0@refs/pr/1", HubName("org/repo", "Q8_0", "refs/pr/1")),
        ("org/repo:sub/a-Q4_0.gguf", HubName("org/repo", "sub/a-Q4_0.gguf")),
    ],
)
def test_names(text: str, expected: HubName) -> None:
    assert HubName.parse(text) == expected
    assert HubName.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    ["", "repo", "a/b/c", "/org/repo", "./repo", "../repo", "org/", "org/re po", "org/repo:", "org/repo:a:b",
     "org/repo@a@b", "org/a--b", "org/a..b", "org/-a", "org/a-", "o" * 97 + "/a", "hf.co/repo"],
)  # fmt: skip
def test_what_is_no_name(text: str) -> None:
    assert not is_hub_name(text) or text == "hf.co/repo"
    with pytest.raises(ValueError, match="name: expected org/repo"):
        HubName.parse(text)


def test_paths_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_name("org/repo") and is_hub_name("org/repo:Q8_0") and is_hub_name("hf.co/org/repo")
    assert not is_hub_name("models/a.gguf") and not is_hub_name(Path("org/repo"))
    (tmp_path / "org" / "repo").mkdir(parents=True)
    assert not is_hub_name("org/repo")


# ---- the choice of files ----


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("tinyllama-1.1b-chat-v1.0.q8_0.gguf", "Q8_0"),
        ("qwen2.5-0.5b-instruct-fp16.gguf", "FP16"),
        ("a-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("a_iq4_xs.gguf", "IQ4_XS"),
        ("BF16/a-BF16-00001-of-00002.gguf", "BF16"),
        ("Q2-model.gguf", "Q2"),
        ("model.gguf", None),
        ("Qwen3.gguf", None),
    ],
)
def test_quant_in_a_name(name: str, quant: str | None) -> None:
    assert [m.quant for m in gguf_models([name])] == [quant]


def pick(names: list[str], tag: str | None = None) -> tuple[str, ...]:
    return choose(names, tag, Path, "org/repo").files


def test_the_quant_picks_a_file() -> None:
    names = ["x-Q4_K_M.gguf", "x-Q8_0.gguf", "x-UD-Q4_K_XL.gguf", "sub/x-F16.gguf", "mmproj-x-Q8_0.gguf"]
    assert pick(names) == ("x-Q4_K_M.gguf",)
    assert pick(names, "q8_0") == pick(names, "x-Q8_0.gguf") == ("x-Q8_0.gguf",)
    assert pick(names, "Q4_K_XL") == ("x-UD-Q4_K_XL.gguf",)
    assert pick(names, "f16") == pick(names, "sub/x-F16.gguf") == ("sub/x-F16.gguf",)
    assert pick(["a-F16.gguf", "a-Q5_K_M.gguf", "a-IQ1_S.gguf"]) == ("a-Q5_K_M.gguf",)
    assert pick(["model.gguf"]) == ("model.gguf",)
    assert pick(["x-Q4_K_M.gguf", "x-UD-Q4_K_M.gguf"], "Q4_K_M") == ("x-Q4_K_M.gguf",)


def test_shards_come_together() -> None:
    shards = [f"x-Q8_0-{i:05}-of-00003.gguf" for i in (1, 2, 3)]
    assert pick(shards[::-1]) == pick(shards, "Q8_0") == tuple(shards)
    with pytest.raises(HubError, match="expected 3 shards, found 2"):
        pick(shards[1:])


@pytest.mark.parametrize(
    ("names", "tag", "message"),
    [
        (["a-Q4_0.gguf", "a-Q8_0.gguf"], "Q2_K", "quant: expected one of Q4_0, Q8_0, found 'Q2_K'"),
        (["a-Q4_0.gguf", "b-Q4_0.gguf"], "q4_0", "several: a-Q4_0.gguf, b-Q4_0.gguf, found 'q4_0'"),
        (["a-Q4_K_M.gguf", "b-Q4_K_M.gguf"], None, "several: a-Q4_K_M.gguf, b-Q4_K_M.gguf, found none"),
        (["a.gguf", "b.gguf"], None, "several: a.gguf, b.gguf, found none"),
        ([f"a{i:02}.gguf" for i in range(40)], "x", "a23.gguf and 16 more"),
        ([], None, "expected \\*.gguf, or config.json with model.safetensors, found no file"),
        (["config.json", "pytorch_model.bin"], None, "found config.json, pytorch_model.bin"),
        (["config.json", "model.safetensors"], None, "expected tokenizer.json or tokenizer.model"),
        (["../a-Q4_0.gguf", "/b-Q8_0.gguf", "c\n.gguf"], None, "found no file"),
        (list(FOLDER), "Q4_K_M", "quant: expected q8_0 or q4_0 for safetensors, found 'Q4_K_M'"),
    ],
)  # fmt: skip
def test_no_choice(names: list[str], tag: str | None, message: str) -> None:
    with pytest.raises(HubError, match=f"^org/repo: .*{message}"):
        pick(names, tag)


@pytest.mark.parametrize(
    "index",
    [b"", b"[]", b"{}", b'{"weight_map": {}}', b'{"weight_map": {"x": 1}}', b'{"weight_map": {"x": "../y"}}',
     b'{"weight_map": [1]}', b"\xff", b"[" * 100_000],
)  # fmt: skip
def test_a_broken_index(tmp_path: Path, index: bytes) -> None:
    names = ["config.json", "tokenizer.json", "model.safetensors.index.json"]
    (tmp_path / names[2]).write_bytes(index)
    with pytest.raises(HubError, match=r"^org/repo/model.safetensors.index.json: weight_map: expected"):
        choose(names, None, tmp_path.joinpath, "org/repo")


# ---- downloads ----


def test_a_gguf_file(hub: HubServer, get: Resolve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "pyllama")
    seen: list[tuple[int, int]] = []
    model = get("org/a-GGUF", lambda done, total: seen.append((done, total)))
    assert model.path.read_bytes() == Q4 and model.quantize is None
    assert seen == sorted(seen) and seen[0] == (0, len(Q4)) and seen[-1] == (len(Q4), len(Q4))
    assert get("hf.co/org/a-GGUF:q8_0").path.read_bytes() == Q8
    hub.requests.clear()
    assert get("org/a-GGUF") == model
    assert len(hub.requests) == 1  # what is new is asked, and nothing else
    assert not caplog.records


def test_what_was_taken_is_said(hub: HubServer, get: Resolve, caplog: pytest.LogCaptureFixture) -> None:
    del hub.repos["org/a-GGUF"].files["a-Q4_K_M.gguf"]
    assert get("org/a-GGUF").path.name == "a-Q8_0.gguf"
    assert caplog.messages == ["org/a-GGUF: no Q4_K_M, taking Q8_0"]


def test_a_new_commit_takes_what_is_new(hub: HubServer, get: Resolve) -> None:
    first = get("org/a-GGUF:Q8_0").path
    hub.repos["org/a-GGUF"].files["a-Q4_K_M.gguf"] = b"other"
    second = get("org/a-GGUF:Q8_0").path
    assert first != second and second.read_bytes() == Q8 and first.exists()
    assert len(hub.bodies("a-Q8_0.gguf")) == 2  # the redirect and the other host: one download
    assert get("org/a-GGUF@v1").path.read_bytes() == b"other"
    assert get(f"org/a-GGUF@{hub.repos['org/a-GGUF'].commit}:Q8_0").path == second


def test_a_folder(hub: HubServer, get: Resolve) -> None:
    model = get("org/folder:Q8_0")
    assert model.quantize == "q8_0" and get("org/folder").quantize is None
    found = {p.name: p.read_bytes() for p in model.path.iterdir()}
    left_out = {"consolidated.safetensors", "pytorch_model.bin", "onnx/model.onnx"}
    assert found == {name: data for name, data in FOLDER.items() if name not in left_out}


def test_a_folder_of_shards(hub: HubServer, get: Resolve) -> None:
    files = hub.repos["org/folder"].files
    del files["model.safetensors"]
    files |= {"model.safetensors.index.json": INDEX, SHARDS[0]: Q4, SHARDS[1]: Q8, "other.safetensors": b"o"}
    folder = get("org/folder").path
    assert [(folder / s).read_bytes() for s in SHARDS] == [Q4, Q8]
    assert not (folder / "other.safetensors").exists()
    del files[SHARDS[1]]
    with pytest.raises(HubError, match=f"index.json: expected shards that are there, found '{SHARDS[1]}'"):
        get("org/folder")


def test_two_at_once_download_once(hub: HubServer, get: Resolve) -> None:
    hub.faults.slow = 0.005
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(get("org/a-GGUF").path)) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(paths) == 3 and len(set(paths)) == 1 and paths[0].read_bytes() == Q4
    assert len(hub.bodies("a-Q4_K_M.gguf")) == 2


# ---- without a network ----


def test_the_cache_does_without_a_network(hub: HubServer, get: Resolve) -> None:
    names = ("org/a-GGUF", "org/a-GGUF:q4_k_m", "org/folder", "org/folder:q4_0", "org/folder@main")
    online = [get(name) for name in names]
    hub.stop()
    assert [get(name) for name in names] == online
    for name in ("org/a-GGUF:Q8_0", "org/a-GGUF@v1", "org/never"):
        with pytest.raises(HubError, match=rf"^{name.split(':')[0].split('@')[0]}: .*is there a network\?"):
            get(name)


def test_an_incomplete_folder_is_no_model(hub: HubServer, get: Resolve) -> None:
    path = get("org/folder").path
    (path / "model.safetensors").unlink()
    hub.faults.status["/api/models"] = [503]
    with pytest.raises(HubError, match="answers 503: try again later; org/folder in the cache: expected"):
        get("org/folder")
    hub.faults.status.clear()
    assert (get("org/folder").path / "model.safetensors").read_bytes() == Q8


# ---- faults on the way ----


def test_a_cut_connection_is_resumed(hub: HubServer, get: Resolve) -> None:
    hub.faults.cuts["a-Q4_K_M.gguf"] = [70_000, 0, 0, 60_000, 1]  # two barren attempts in a row are borne
    assert get("org/a-GGUF").path.read_bytes() == Q4
    asked = hub.bodies("a-Q4_K_M.gguf")[1::2]
    assert asked[0] is None and len(asked) == 6
    starts = [int(r.removeprefix("bytes=")[:-1]) for r in asked[1:] if r]
    assert starts == sorted(starts) and 0 < starts[0] <= 70_000 and starts[-1] > 70_000


def test_the_next_pull_resumes(hub: HubServer, get: Resolve, tmp_path: Path) -> None:
    hub.faults.cuts["a-Q4_K_M.gguf"] = [150_000] + [0] * 20
    with pytest.raises(HubError, match=r"^org/a-GGUF/a-Q4_K_M.gguf: http://.* cannot be read"):
        get("org/a-GGUF")
    assert left_over(tmp_path) == {"incomplete": 1, "blobs": 0, "snapshots": 0}
    hub.faults.cuts.clear()
    hub.requests.clear()
    seen: list[tuple[int, int]] = []
    assert get("org/a-GGUF", lambda done, total: seen.append((done, total))).path.read_bytes() == Q4
    [asked] = set(hub.bodies("a-Q4_K_M.gguf"))
    assert asked is not None and seen[0][0] == int(asked.removeprefix("bytes=")[:-1]) > 80_000
    assert left_over(tmp_path) == {"incomplete": 0, "blobs": 1, "snapshots": 1}


def test_a_hub_that_ignores_range(hub: HubServer, get: Resolve) -> None:
    hub.faults.ignore_range = True
    hub.faults.cuts["a-Q4_K_M.gguf"] = [100_000]
    assert get("org/a-GGUF").path.read_bytes() == Q4


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])  # SHA-256, and Git's SHA-1
def test_wrong_bytes_are_refused(hub: HubServer, get: Resolve, tmp_path: Path, file: str) -> None:
    hub.faults.wrong.add(file)
    with pytest.raises(
        HubError, match=f"^org/folder/{file}: expected hash [0-9a-f]+, found [0-9a-f]+: damaged"
    ):
        get("org/folder")
    names = {p.name for p in (tmp_path / "cache").rglob("*")}
    assert file not in names and not any(name.endswith(".incomplete") for name in names)
    hub.faults.wrong.clear()
    assert (get("org/folder").path / file).read_bytes() == FOLDER[file]


def test_a_wrong_beginning_is_found_at_the_end(hub: HubServer, get: Resolve, tmp_path: Path) -> None:
    hub.faults.wrong.add("a-Q4_K_M.gguf")
    hub.faults.cuts["a-Q4_K_M.gguf"] = [150_000] + [0] * 20
    with pytest.raises(HubError, match="cannot be read"):
        get("org/a-GGUF")
    hub.faults.wrong.clear()
    hub.faults.cuts.clear()
    with pytest.raises(HubError, match="damaged"):
        get("org/a-GGUF")
    assert left_over(tmp_path) == {"incomplete": 0, "blobs": 0, "snapshots": 0}
    assert get("org/a-GGUF").path.read_bytes() == Q4


def test_an_overloaded_hub_is_asked_again(hub: HubServer, get: Resolve) -> None:
    hub.faults.status["/cdn/"] = [503, 429]
    assert get("org/a-GGUF").path.read_bytes() == Q4
    hub.faults.status["/cdn/"] = [500] * 20
    with pytest.raises(HubError, match=r"^org/a-GGUF/a-Q8_0.gguf: .* answers 500: try again later"):
        get("org/a-GGUF:Q8_0")
    hub.faults.status["/cdn/"] = [404]
    with pytest.raises(HubError, match=r"^org/a-GGUF/a-Q8_0.gguf: .*404"):
        get("org/a-GGUF:Q8_0")
    hub.faults.status.clear()
    hub.faults.status["/api/"] = [500] * 20
    with pytest.raises(HubError, match="answers 500: try again later"):
        get("org/folder")


@pytest.mark.parametrize("code", [401, 403])
def test_a_gated_repo(hub: HubServer, get: Resolve, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    hub.repos["org/a-GGUF"].gated = code
    page = f"{hub.url}/org/a-GGUF"
    with pytest.raises(HubError, match=f"gated: accept the terms on {page}, then set HF_TOKEN to a token"):
        get("org/a-GGUF")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert get("org/a-GGUF").path.read_bytes() == Q4
    assert not hub.leaked


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("org/nope", "org/nope: not found on http://.*; if it is private, set HF_TOKEN"),
        ("org/data", "org/data: expected a model, found a dataset"),
        ("org/a-GGUF@nope", "org/a-GGUF: revision 'nope': not found in http://.*/org/a-GGUF"),
        ("org/a-GGUF:Q2_K", "org/a-GGUF: quant: expected one of Q4_K_M, Q8_0, found 'Q2_K'"),
        ("org/folder:Q6_K", "org/folder: quant: expected q8_0 or q4_0 for safetensors, found 'Q6_K'"),
    ],
)
def test_errors_say_what_is_wrong(get: Resolve, name: str, message: str) -> None:
    with pytest.raises(HubError, match=f"^{message}"):
        get(name)


def test_a_full_disk_is_seen_before(
    hub: HubServer, get: Resolve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(HubError, match=f"cache: expected {len(Q4)} bytes of free disk, found 1000"):
        get("org/a-GGUF")
    assert not hub.bodies("a-Q4_K_M.gguf")


def test_a_cache_that_is_no_folder(get: Resolve, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(OSError, match="File exists"):
        get("org/a-GGUF")


def test_an_etag_is_no_path(hub: HubServer, get: Resolve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubserver.digest", lambda name, data: "../../x")
    with pytest.raises(HubError, match=r"expected an ETag and a size, found '../../x'"):
        get("org/a-GGUF")
