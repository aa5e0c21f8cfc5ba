"""One engine in a process of its own, so that builds do not meet and each has its own memory.

`Worker` is the side that asks. The other side is this file run as a script: a JSON object per line on stdin,
{"do": name of a method, ...its arguments}, and one on stdout: {"value": ...} or {"error": text}.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any


class WorkerError(Exception):
    """What the other side could not do."""


class Worker:
    """An engine of `kind` under the interpreter `python`."""

    def __init__(self, kind: str, python: str) -> None:
        self._process = subprocess.Popen(
            [python, __file__, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, do: str, **arguments: Any) -> Any:
        """Raises WorkerError."""
        process = self._process
        assert process.stdin and process.stdout
        try:
            process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerError(f"its process ended with code {process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer["value"]

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def peak_rss() -> int:
    """Bytes that this process had at most."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))


def serve(kind: str) -> None:
    from engines import ENGINES

    engine, out = ENGINES[kind](), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    for line in sys.stdin:
        command = json.loads(line)
        do = command.pop("do")
        try:
            start = time.perf_counter()
            value = peak_rss() if do == "peak_rss" else getattr(engine, do)(**command)
            answer = {"value": time.perf_counter() - start if value is None else value}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
