"""Broken Hugging Face folders by the thousand: python tests/fuzz_folders.py -n 5000 --seed 1

Each is loaded and run over three tokens, or refused with a PyllamaError that names the folder.
"""

from __future__ import annotations

import argparse
import copy
import faulthandler
import json
import random
import shutil
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ggufmodel import forward
from hfmodel import CONFIGS, version5, weights, write_folder

from pyllama.errors import PyllamaError

NASTY: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 2**31, 2**63, -(2**70), 10**400, 0.5, -2.5, 1e300, 1e-300,
    "", "1", "x\0y", "llama", "default", "yarn", "longrope", [], [1], [None] * 3, ["sliding_attention"] * 2,
    {}, {"a": 1}, {"rope_type": "yarn"}, {"rope_type": "linear", "factor": 0}, [[[[]]]], "é" * 300,
]  # fmt: skip
DTYPES = ["F64", "F8_E4M3", "I8", "BOOL", "F16", "BF16", "F32", "", 3, None]
BASES = ("llama-tied-llama3", "phi3-long", "smollm3-window", "qwen3-window", "granite-biases")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def mutate_json(rng: random.Random, value: Any, nasty: list[Any]) -> Any:
    """A copy with one value replaced, removed, renamed or doubled."""
    value = copy.deepcopy(value)
    *path, last = rng.choice(list(places(value)))
    at = value
    for key in path:
        at = at[key]
    how = rng.randrange(6)
    if how == 0:
        del at[last]
    elif how == 1 and isinstance(at, dict):
        at[rng.choice(["", "model_type", "rope_theta", "mscale", str(last) + "x"])] = at.pop(last)
    elif how == 2 and isinstance(at[last], int) and not isinstance(at[last], bool):
        at[last] += rng.choice([-1, 1, 2, 8, 1 << 20, 1 << 40])
    else:
        at[last] = rng.choice(nasty)
    return value


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    """Flipped, cut, doubled or overwritten."""
    at = rng.randrange(len(data))
    how = rng.randrange(4)
    if how == 0:
        return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    if how == 1:
        return data[:at]
    if how == 2:
        return data[:at] + data[at:][: rng.randrange(1, 64)] + data[at:]
    word = struct.pack(
        "<Q", rng.choice([0, 1, 8, 2**31, 2**63, 2**64 - 1, len(data), rng.randrange(1 << 20)])
    )
    return word + data[8:] if rng.random() < 0.5 else data[:at] + word + data[at + 8 :]


def mutate_safetensors(rng: random.Random, data: bytes) -> bytes:
    """The header's JSON or any byte changed."""
    if rng.random() < 0.4:
        return mutate_bytes(rng, data)
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    text = json.dumps(mutate_json(rng, header, NASTY + DTYPES)).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def mutate_folder(folder: Path, rng: random.Random) -> str:
    """Changes one file of a good folder; what was done."""
    kind = rng.choice(["config", "config", "config", "config bytes", "safetensors", "safetensors", "index"])
    config, weight = folder / "config.json", folder / "model.safetensors"
    if kind == "config":
        config.write_text(json.dumps(mutate_json(rng, json.loads(config.read_text()), NASTY)))
    elif kind == "config bytes":
        config.write_bytes(mutate_bytes(rng, config.read_bytes()))
    elif kind == "safetensors":
        weight.write_bytes(mutate_safetensors(rng, weight.read_bytes()))
    else:
        names = json.loads(weight.read_bytes()[8 : 8 + struct.unpack("<Q", weight.read_bytes()[:8])[0]])
        index = {"metadata": {}, "weight_map": {n: weight.name for n in names if n != "__metadata__"}}
        odd = ["../model.safetensors", "/etc/passwd", "b.safetensors", "model.bin", ".safetensors"]
        text = json.dumps(mutate_json(rng, index, NASTY + odd))
        (folder / "model.safetensors.index.json").write_text(text)
    return kind


def attempt(folder: Path) -> str:
    """ "loaded" or "refused"; any other exception goes through."""
    try:
        forward(str(folder), [[(0, [1, 2, 3])]], kv_bytes=1 << 20)
    except (PyllamaError, FileNotFoundError) as error:
        assert str(folder) in str(error), error
        return "refused"
    except ValueError as error:  # a context that is too small for a block is the caller's to change
        assert "kv_bytes" in str(error), error
        return "refused"
    return "loaded"


def run(n: int, seed: int) -> Counter[str]:
    """Outcomes of n mutations. Raises what was neither loaded nor refused, naming the mutation."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as top:
        good = []
        for i, name in enumerate(BASES):
            fields = CONFIGS[name] if i % 2 else version5(CONFIGS[name])
            good.append(write_folder(Path(top) / f"good-{i}", fields, weights(CONFIGS[name])))
        for i in range(n):
            rng = random.Random(f"{seed} {i}")
            folder = Path(top) / "broken"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(rng.choice(good), folder)
            kind = mutate_folder(folder, rng)
            try:
                counts[attempt(folder)] += 1
            except BaseException:
                print(f"seed {seed} mutation {i}: {kind}", file=sys.stderr)
                raise
    return counts


if __name__ == "__main__":
    faulthandler.enable()
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(dict(run(arguments.n, arguments.seed)))
