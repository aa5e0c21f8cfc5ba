"""`pyllama tokenize`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clirun import modules_after, run

from pyllama.cli.tinymodel import write_tiny_model
from pyllama.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny_model(path)
    return path


def test_each_token_with_its_text(tiny: Path) -> None:
    ids = Tokenizer.from_file(tiny).encode("a\n\u00e9")
    lines = run("tokenize", "-m", tiny, "-p", "a\n\u00e9").stdout.splitlines()
    assert [int(line.split(" -> ")[0]) for line in lines] == ids
    shown = [line.split(" -> ")[1] for line in lines]
    assert shown[0] == "'<s>'" and shown[-3:] == [r"'\n'", r"b'\xc3'", r"b'\xa9'"]


def test_ids_alone_and_options(tiny: Path) -> None:
    tok = Tokenizer.from_file(tiny)

    def ids(*args: str, stdin: str = "") -> list[int]:
        found: list[int] = json.loads(run("tokenize", "-m", tiny, "--ids", *args, stdin=stdin).stdout)
        return found

    assert ids("-p", "a</s>") == tok.encode("a</s>")
    assert ids("-p", "a</s>", "--no-bos") == tok.encode("a</s>", add_bos=False)
    assert (
        ids("-p", "a</s>", "--parse-special")
        == ids("-p", "a</s>", "--special")
        == tok.encode("a</s>", special=True)
    )
    assert ids("-p", "") == [1]
    assert ids("-f", "-", stdin="ab\n") == tok.encode("ab")


def test_json(tiny: Path) -> None:
    tok = Tokenizer.from_file(tiny)
    result = json.loads(run("tokenize", "-m", tiny, "-p", "ab", "-o", "json").stdout)
    ids = tok.encode("ab")
    pieces = [tok.piece(i) for i in ids]
    assert result == {"model": str(tiny), "n_tokens": len(ids), "ids": ids, "pieces": pieces}


def test_errors_name_the_file(tmp_path: Path, tiny: Path) -> None:
    assert "no-such: No such file" in run("tokenize", "-m", "no-such", "-p", "a", code=1).stderr
    (tmp_path / "tokenizer.json").write_text("[]")
    failed = run("tokenize", "-m", tmp_path, "-p", "a", code=1)
    assert "tokenizer.json: file: expected a JSON object, found an array of 0" in failed.stderr
    assert failed.stdout == ""
    assert "expected one of -p and -f" in run("tokenize", "-m", tiny, code=2).stderr


def test_no_model_is_imported(tiny: Path) -> None:
    assert not {"pyllama.llm", "pyllama._core"} & modules_after("tokenize", "-m", str(tiny), "-p", "a")
