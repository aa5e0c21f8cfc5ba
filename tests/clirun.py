"""Runs `python -m pyllama` as a child process, for tests."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))}
COMMAND = [sys.executable, "-m", "pyllama"]


def run(
    *args: str | Path, code: int = 0, stdin: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs pyllama to its end and checks the exit code; no command ever shows a traceback."""
    done = subprocess.run(
        [*COMMAND, *map(str, args)],
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=ENV | (env or {}),
        timeout=120,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stderr
    return done


def start(*args: str | Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Starts pyllama with pipes that hold nothing back."""
    return subprocess.Popen(
        [*COMMAND, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=ENV | (env or {}),
        # A parent in the background may ignore SIGINT, and its children with it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def on_terminal(*args: str, env: dict[str, str] | None = None) -> tuple[bytes, bytes]:
    """stdout of a child process, and what it shows on the terminal that is its stderr."""
    ours, its = pty.openpty()
    with subprocess.Popen(
        args, stdout=subprocess.PIPE, stderr=its, env={**ENV, **(env or {}), "TERM": "xterm"}
    ) as child:
        os.close(its)
        shown = b""
        with contextlib.suppress(OSError):  # it has closed its end
            while data := os.read(ours, 4096):
                shown += data
        os.close(ours)
        out, _ = child.communicate(timeout=120)
    assert child.returncode == 0, shown
    return out, shown


def modules_after(*args: str) -> set[str]:
    """The modules that are imported when a command has run."""
    code = f"import sys; from pyllama.cli import main; main({list(args)!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENV, check=True)
    return set(done.stdout.split())
