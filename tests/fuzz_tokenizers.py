"""Broken tokenizer files by the thousand: the JSON files of folders, and GGUF vocabularies.

    python tests/fuzz_tokenizers.py -n 3000 --seed 1

Values are replaced, dropped, doubled and swapped wherever they are in a valid file; some files are
cut or get other bytes. Mutation i of a seed is always the same. A child process loads them; exit
status: 0 if each was loaded or refused with an error that names it, else 1.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
from fuzzrun import CRASH, HANG, LOADED, REFUSED, attempt, lines, stop
from ggufwriter import gguf_bytes
from hftokenizer import CONTROL, LLAMA3, NORMAL, USER, added, byte_level, sentencepiece, template
from mutate import Parser, mutate

from pyllama.bpe import LETTERS

SPM = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "\u2581", *"helo", "he", "ll", "hell"]
MERGES = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("\u0120", "w"), ("o", "r")]
TEXTS = ["", "hello  world\n1234", "</s><tag> \u00e9\U0001f999<|eot_id|>", "\u0130's"]
TREES = ("tokenizer", "tokenizer", "tokenizer", "tokenizer_config", "generation_config", "config")
Tree = dict[str, Any]


@functools.cache
def seeds() -> list[dict[str, str]]:
    """Two valid folders: name of the file, its text."""
    llama3 = byte_level([*LETTERS, *(a + b for a, b in MERGES)], MERGES, LLAMA3, ignore_merges=True)
    llama3.add_special_tokens([added("<s>"), added("</s>"), added("<|eot_id|>")])
    llama3.add_tokens([added("<tag>", False, rstrip=True)])
    template(llama3, "<s>")
    llama3.normalizer = tokenizers.normalizers.NFC()
    llama2 = sentencepiece(SPM, [-float(i) for i in range(len(SPM))])
    llama2.add_special_tokens([added(piece) for piece in SPM[:3]])
    llama2.add_tokens([added("<tag>", False, lstrip=True, normalized=True)])
    template(llama2, "<s>")
    config = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "add_bos_token": True, "legacy": False}
    config["chat_template"] = [{"name": "default", "template": "{{ x }}"}]
    config["added_tokens_decoder"] = {"270": {"content": "<new>", "special": True, "lstrip": True}}
    rest = {"tokenizer_config": config, "generation_config": {"eos_token_id": [1, 2]}}
    rest["config"] = {"vocab_size": 300, "eos_token_id": 2, "bos_token_id": 1}
    texts = {name: json.dumps(values) for name, values in rest.items()}
    return [{"tokenizer": library.to_str(), **texts} for library in (llama3, llama2)]


@functools.cache
def gguf_seed() -> bytes:
    """A valid GGUF file of a byte-level vocabulary."""
    special = [("<tag>", USER), ("<s>", CONTROL), ("<|eot_id|>", CONTROL)]
    pieces = [*((p, NORMAL) for p in [*LETTERS, *(a + b for a, b in MERGES)]), *special]
    return gguf_bytes(
        [
            ("general.architecture", "str", "llama"),
            ("tokenizer.ggml.model", "str", "gpt2"),
            ("tokenizer.ggml.pre", "str", "llama-bpe"),
            ("tokenizer.ggml.tokens", "[str]", [piece for piece, _ in pieces]),
            ("tokenizer.ggml.token_type", "[i32]", [kind for _, kind in pieces]),
            ("tokenizer.ggml.merges", "[str]", [" ".join(pair) for pair in MERGES]),
            ("tokenizer.ggml.bos_token_id", "u32", len(pieces) - 2),
            ("tokenizer.ggml.eos_token_id", "u32", len(pieces) - 1),
            ("tokenizer.ggml.add_bos_token", "bool", True),
            ("tokenizer.chat_template", "str", "{{ x }}"),
        ]
    )


# ---- mutations


def nasty(rng: random.Random) -> Any:
    """A value that the field does not expect, or that is just not allowed in it."""
    deep: list[Any] = []
    for _ in range(rng.choice([3, 70])):
        deep = [deep]
    numbers = [-1, 0, 1, 2, 264, 1.5, 1e308, 1 << 22, 1 << 31, 1 << 32, 1 << 63, 1 << 70]
    texts = [
        "",
        "x",
        " ",
        "h",
        "<s>",
        "\0",
        "\ud800",
        "\u2581",
        "ByteLevel",
        "((",
        "(?i:a|b)*",
        "x" * 100_000,
    ]
    others = [None, True, False, [], {}, deep, [5], ["h", "e"], {"type": "Sequence"}, {"content": "h"}]
    return rng.choice(rng.choice([numbers, texts, others]))


def place(rng: random.Random, tree: Any) -> tuple[Any, Any]:
    """A container somewhere in the tree and one of its keys; deep places are as likely as others."""
    while True:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        key = rng.choice(keys)
        below = tree[key]
        if not isinstance(below, (dict, list)) or not below or rng.random() < 0.15:
            return tree, key
        tree = below


def edit(rng: random.Random, tree: Tree) -> str:
    """One change of a value in place; what it was."""
    at, key = place(rng, tree)
    how = rng.choice(["replace", "replace", "replace", "drop", "double", "rename", "swap"])
    if how == "drop":
        del at[key]
    elif how == "double" and isinstance(at, list):
        at.insert(key, at[key])
    elif how == "rename" and isinstance(at, dict):
        at[rng.choice(["", "x", "h", "type", "<s>", "5", "\ud800"])] = at.pop(key)
    elif how == "swap":
        other, name = place(rng, tree)
        at[key], other[name] = json.loads(json.dumps([other[name], at[key]]))
    else:
        at[key] = nasty(rng)
    return f"{how} {key!r:.40}"


def damage(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    """Other bytes, or fewer."""
    i = rng.randrange(len(data) + 1)
    if rng.random() < 0.4:
        return f"cut at {i}", data[:i]
    new = rng.choice([b"\xff", b"\xed\xa0\x80", b"[" * 3000, b"9" * 5000, b"NaN", b'"', b"\0", b"}"])
    return f"{new[:4]!r} at {i}", data[:i] + new + data[i + rng.choice([0, len(new)]) :]


def mutated(folder: Path, seed: int, i: int) -> tuple[str, Path]:
    """Writes mutation i of a seed: what it is, and the path to load."""
    rng = random.Random(f"{seed}:{i}")
    if rng.random() < 0.25:
        what, data = mutate(Parser(gguf_seed()).parse(), seed, i)
        path = folder / "model.gguf"
        path.write_bytes(data)
        return what, path
    files = {name: text.encode() for name, text in seeds()[rng.randrange(2)].items()}
    name = rng.choice(TREES)
    if rng.random() < 0.2:
        what, files[name] = damage(rng, files[name])
    else:
        tree = json.loads(files[name])
        what = "; ".join(edit(rng, tree) for _ in range(rng.choice([1, 1, 1, 2, 3])) if tree)
        files[name] = json.dumps(tree).encode()
    for name_, text in files.items():
        (folder / f"{name_}.json").write_bytes(text)
    return f"{name}.json: {what}", folder


def load(path: str) -> None:
    """The tokenizer, and what must hold of every one that loads."""
    from pyllama.tokenizer import Tokenizer

    tok = Tokenizer.from_file(path)
    for text in TEXTS:
        try:
            ids = tok.encode(text, special=True) + tok.encode(text)
        except ValueError as e:
            if not str(e).startswith("text: byte 0x"):
                raise
            continue
        stream = tok.stream()
        assert "".join([*map(stream.put, ids), stream.flush()]) == tok.decode(ids)
        assert all(0 <= i < tok.vocab_size for i in [*ids, *tok.stop_ids])
    assert isinstance(tok.chat_template, (str, type(None)))


def fuzz(seed: int, first: int, n: int, report: Callable[..., None]) -> None:
    """Loads mutations first .. n - 1; `report` gets each before and after."""
    with tempfile.TemporaryDirectory() as folder:
        for i in range(first, n):
            report(i, "begin", "")
            what, path = mutated(Path(folder), seed, i)
            outcome, message = attempt(load, str(path))
            report(i, outcome, f"{what}\n{message}")


# ---- the command line


def run(seed: int, n: int, time_limit: float) -> Counter[str]:
    """All in child processes, which may crash or hang."""
    counts: Counter[str] = Counter()
    done = 0
    while done < n:
        pipe, end = os.pipe()
        command = [sys.executable, __file__, "-n", str(n), "--seed", str(seed), "--first", str(done)]
        child = subprocess.Popen([*command, "--pipe", str(end)], pass_fds=[end], stderr=subprocess.DEVNULL)
        os.close(end)
        outcome, message = CRASH, "no message"
        try:
            for i, step, message in lines(pipe, time_limit):
                done = i + (step != "begin")
                if step != "begin":
                    counts[step] += 1
                    if step not in (LOADED, REFUSED):
                        print(f"seed {seed} mutation {i}: {step}\n{message}", flush=True)
        except TimeoutError:
            outcome = HANG
        os.close(pipe)
        stop(child, 0 if outcome == HANG else time_limit)
        if done < n:
            print(f"seed {seed} mutation {done}: {outcome}", flush=True)
            counts[outcome] += 1
            done += 1
    return counts


def main() -> int:
    """The exit status."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("-n", type=int, default=1000, help="mutations")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--time-limit", type=float, default=20.0, help="seconds per file")
    p.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    p.add_argument("--pipe", type=int, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.pipe is not None:
        fuzz(a.seed, a.first, a.n, lambda *m: os.write(a.pipe, json.dumps(m).encode() + b"\n"))
        return 0
    counts = run(a.seed, a.n, a.time_limit)
    print(f"{a.n} mutations of seed {a.seed}: {', '.join(f'{n} {what}' for what, n in counts.items())}")
    return int(counts[LOADED] + counts[REFUSED] != a.n)


if __name__ == "__main__":
    sys.exit(main())
