"""Loads the files of `mutate` in a child process, and counts what comes of it.

A child loads many files; the parent starts another one after a crash or a hang and goes on with
the next file. Exit status: 0 if every file was loaded or refused with a PyllamaError that names
it, 1 if not, 2 for bad arguments or a loader that does not start.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import importlib
import io
import json
import os
import select
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mutate import Layout, Parser, mutate

LOADED, REFUSED, OTHER, CRASH, HANG = "loaded", "pyllama error", "other exception", "crash", "hang"
START_LIMIT = 120.0  # seconds until a child has imported everything
ADDRESS_SPACE = 4 << 30  # bytes


def load_gguf(path: str) -> None:
    """The reader alone: all metadata and every tensor's bytes."""
    from pyllama.weights.gguf import GGUFFile

    with GGUFFile(path) as f:
        for name, info in f.tensors.items():
            assert len(f.read(name)) == info.nbytes


def load_llm(path: str) -> None:
    """The whole engine: load, tokenize, four greedy tokens."""
    from pyllama import LLM, SamplingParams

    with LLM(path) as llm:
        llm.generate(["Once upon a time"], SamplingParams(max_tokens=4, temperature=0))


def loader(name: str) -> Callable[[str], Any]:
    """ "gguf", "llm" or "module:function" of one path."""
    known = {"gguf": load_gguf, "llm": load_llm}
    if name in known:
        return known[name]
    module, _, function = name.partition(":")
    load: Callable[[str], Any] = getattr(importlib.import_module(module), function)
    return load


def attempt(load: Callable[[str], Any], path: str) -> tuple[str, str]:
    """Outcome and message of loading one file in this process."""
    from pyllama.errors import ModelLoadError, PyllamaError

    try:
        load(path)
    except PyllamaError as e:
        if isinstance(e, ModelLoadError) and path not in str(e):
            return OTHER, f"the message does not name the file: {e!r}"
        return REFUSED, f"{type(e).__name__}: {e}"
    except Exception:
        return OTHER, traceback.format_exc()
    return LOADED, ""


# ---- the child


def child(a: argparse.Namespace, layout: Layout) -> int:
    """Load mutations a.first .. a.n - 1, with one JSON line before and one after each."""
    faulthandler.enable()
    load = loader(a.load)
    if not a.no_limit:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))

    def report(*message: Any) -> None:
        os.write(a.pipe, json.dumps(message).encode() + b"\n")

    for i in range(a.first, a.n):
        path = Path(a.folder, f"mutation-{i}.gguf")
        path.write_bytes(mutate(layout, a.seed, i)[1])
        report(i, "begin", "")
        report(i, *attempt(load, str(path)))
        path.unlink()
        if i % 50 == 0:
            gc.collect()
    return 0


# ---- the parent


def lines(pipe: int, limit: float) -> Iterator[list[Any]]:
    """The child's messages; TimeoutError if none comes for `limit` seconds."""
    buf, wait = b"", START_LIMIT
    while True:
        if not select.select([pipe], [], [], wait)[0]:
            raise TimeoutError
        more = os.read(pipe, 1 << 16)
        if not more:
            return
        *whole, buf = (buf + more).split(b"\n")
        yield from map(json.loads, whole)
        wait = limit


def stop(process: subprocess.Popen[str], patience: float) -> int:
    """Exit status of a process that has `patience` seconds to end by itself."""
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def run_child(a: argparse.Namespace, first: int) -> Iterator[tuple[int, str, str]]:
    """(mutation, outcome, message) from `first` on, until the end, a crash or a hang."""
    pipe, end = os.pipe()
    command = [sys.executable, __file__, a.file, "-n", str(a.n), "--seed", str(a.seed)]
    command += ["--load", a.load, "--folder", a.folder, "--first", str(first), "--pipe", str(end)]
    command += ["--no-limit"] * a.no_limit
    with tempfile.TemporaryFile("w+", errors="replace") as err:
        process = subprocess.Popen(command, stdout=err, stderr=err, pass_fds=[end], text=True)
        os.close(end)
        running, outcome = -1, HANG
        try:
            for i, step, message in lines(pipe, a.time_limit):
                running = i if step == "begin" else -1
                if step != "begin":
                    yield i, step, message
            outcome = CRASH  # unless it had nothing left to do
        except TimeoutError:
            pass
        finally:
            os.close(pipe)
            status = stop(process, 0 if outcome == HANG else a.time_limit)
        err.seek(0)
        tail = f"exit status {status}\n{err.read()[-2000:]}"
    if running >= 0:
        yield running, outcome, tail
    elif status or outcome == HANG:
        raise RuntimeError(f"the child failed outside of any file: {tail}")


def run(a: argparse.Namespace, layout: Layout) -> Counter[str]:
    """Load all of them; failures are printed, and kept in a.keep."""
    counts: Counter[str] = Counter()
    done = a.first
    while done < a.n:
        for i, outcome, message in run_child(a, done):
            done = i + 1
            counts[outcome] += 1
            if a.verbose or outcome not in (LOADED, REFUSED):
                description, data = mutate(layout, a.seed, i)
                print(f"{a.file} seed {a.seed} mutation {i}: {outcome}\n  {description}")
                print("  " + message.strip().replace("\n", "\n  "), flush=True)
                if a.keep and outcome not in (LOADED, REFUSED):
                    name = f"{Path(a.file).stem}-{a.seed}-{i}-{outcome.split()[0]}"
                    Path(a.keep, f"{name}.gguf").write_bytes(data)
                    note = f"{description}\n{message}\n".encode(errors="backslashreplace")
                    Path(a.keep, f"{name}.txt").write_bytes(note)
    return counts


def arguments(argv: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("file", help="a valid GGUF file")
    p.add_argument("-n", type=int, default=1000, help="mutations")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--load", default="gguf", help="gguf, llm or module:function of a path")
    p.add_argument("--only", type=int, help="this mutation alone, verbose")
    p.add_argument("--keep", help="folder for the files that fail")
    p.add_argument("--time-limit", type=float, default=20.0, help="seconds per file")
    p.add_argument("--no-limit", action="store_true", help="no limit of 4 GiB address space")
    p.add_argument("-v", "--verbose", action="store_true", help="print every mutation")
    p.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    p.add_argument("--folder", help=argparse.SUPPRESS)
    p.add_argument("--pipe", type=int, help=argparse.SUPPRESS)
    a = p.parse_args(argv)
    if a.only is not None:
        a.first, a.n, a.verbose = a.only, a.only + 1, True
    return a


def main(argv: list[str] | None = None) -> int:
    """The command line; the exit status."""
    a = arguments(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # messages quote broken text
    layout = Parser(Path(a.file).read_bytes()).parse()
    if a.pipe is not None:
        return child(a, layout)
    if a.keep:
        Path(a.keep).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as a.folder:
        try:
            counts = run(a, layout)
        except RuntimeError as e:
            print(e, file=sys.stderr)
            return 2
    found = ", ".join(f"{counts[k]} {k}" for k in (LOADED, REFUSED, OTHER, CRASH, HANG))
    print(f"{a.file}: {a.n - a.first} mutations of seed {a.seed}: {found}")
    return int(counts[LOADED] + counts[REFUSED] != a.n - a.first)


if __name__ == "__main__":
    sys.exit(main())
