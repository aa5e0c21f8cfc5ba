"""`pyllama chat` on a pseudo-terminal, for tests that press keys."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from pathlib import Path

from clirun import COMMAND, ENV

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
STATS = (
    r"\[prompt (\d+), (\d+) cached, [\d.]+ t/s \| answer (\d+)(, [\d.]+ t/s)? "
    r"\| context (\d+) of (\d+)(.*)\]"
)
CTRL_C, CTRL_D, UP, TAB = "\x03", "\x04", "\x1b[A", "\t"


def take_terminal() -> None:
    """Makes stdin the terminal that sends signals; heeds them though a parent in the background may not."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A chat on a terminal of its own, which turns Ctrl-C into SIGINT."""

    def __init__(self, state: Path, *args: str | Path) -> None:
        self.fd, end = pty.openpty()
        self.text, self.seen = "", 0
        self.child = subprocess.Popen(
            [*COMMAND, "chat", "-t", "1", *map(str, args)],
            stdin=end,
            stdout=end,
            stderr=end,
            env={**ENV, "TERM": "xterm", "XDG_STATE_HOME": str(state), "COLUMNS": "200"},
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        os.close(end)

    def read(self, limit: float) -> bool:
        """More of what is shown; False at the end."""
        if limit < 0 or not select.select([self.fd], [], [], limit)[0]:
            raise TimeoutError(f"nothing more after {self.text[-2000:]!r}")
        try:
            data = os.read(self.fd, 1 << 16)
        except OSError:  # EIO: the child has closed its end
            return False
        self.text += ESCAPES.sub("", data.decode("utf-8", "replace"))
        return bool(data)

    def expect(self, pattern: str) -> re.Match[str]:
        """Waits until the pattern is shown after what was expected last."""
        end = time.monotonic() + 60
        while not (found := re.compile(pattern, re.M).search(self.text, self.seen)):
            if not self.read(end - time.monotonic()):
                raise EOFError(f"{pattern!r} is not in {self.text[self.seen :]!r}")
        self.seen = found.end()
        return found

    def say(self, line: str, pattern: str = STATS) -> re.Match[str]:
        """Types a line, waits for the pattern and the next prompt."""
        self.press(line + "\n")
        self.expect(re.escape(line.splitlines()[-1]))  # the echo
        found = self.expect(pattern)
        self.expect("^> ")
        return found

    def press(self, keys: str) -> None:
        """Control keys are readline's only while it shows a prompt; a signal that comes between the
        prompt and its wait for keys is seen with the next key."""
        if keys in (CTRL_C, CTRL_D):
            time.sleep(0.3)
        os.write(self.fd, keys.encode())

    def end(self, keys: str = CTRL_D) -> str:
        """Leaves; all that was shown. The exit code is 0."""
        self.press(keys)
        while self.read(60):
            pass
        assert self.child.wait(60) == 0, self.text
        assert "Traceback" not in self.text
        return self.text

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self.fd)
