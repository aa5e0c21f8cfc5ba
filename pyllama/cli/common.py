"""What the commands share: messages, the loading of a model."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from pyllama.errors import PyllamaError

if TYPE_CHECKING:
    from pyllama.llm import LLM
    from pyllama.locate import Located

Progress = Callable[[int, int], None]

BAR_AFTER = 0.5  # seconds of work


def fancy() -> bool:
    """Whether stderr shows colour and moving things."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def stdin() -> BinaryIO:
    """The bytes of stdin. ClickException if the caller has closed it."""
    if sys.stdin is None:
        raise click.ClickException("stdin: expected an open file, found none")
    return sys.stdin.buffer


def complain(message: str) -> None:
    """The error as one line on stderr."""
    line = " ".join(message.split())
    label = "pyllama: error:"
    if fancy() and "NO_COLOR" not in os.environ:
        label = click.style(label, fg="red", bold=True)
    click.echo(f"{label} {line}", err=True)


def note(message: str) -> None:
    """A line on stderr."""
    click.echo(f"pyllama: {message}", err=True)


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """The library's ValueError about an argument is the user's mistake: exit code 2."""
    try:
        yield
    except PyllamaError:
        raise
    except ValueError as error:
        context = click.get_current_context(silent=True)
        raise click.UsageError(_by_option(str(error), context), context) from error


def _by_option(message: str, context: click.Context | None) -> str:
    """The message, which begins with the library's names of arguments, with the options that gave them."""
    arguments, colon, rest = message.partition(":")
    if context is None or not re.fullmatch(r"[a-z_]+(\[\d+\])?(, [a-z_]+)*", arguments):
        return message
    options = {param.name: max(param.opts, key=len) for param in context.command.params}
    return re.sub("[a-z_]+", lambda name: options.get(name[0], name[0]), arguments) + colon + rest


@contextlib.contextmanager
def progress_bar(title: str, quiet: bool = False) -> Iterator[Progress | None]:
    """A function that moves a bar on stderr, or None where nobody looks. Short work shows none."""
    if quiet or not fancy():
        yield None
        return
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        move: Progress | None = None

        def show(done: int, total: int) -> None:
            nonlocal move
            if move is None and time.monotonic() - begin > BAR_AFTER:
                move = stack.enter_context(_bar(title))
            if move is not None:
                move(done, total)

        yield show


@contextlib.contextmanager
def _bar(title: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    # stdout is left alone: it may be a file while stderr is the terminal.
    name = TextColumn("{task.description}", markup=False)
    columns = (name, BarColumn(), DownloadColumn(), TimeRemainingColumn(elapsed_when_finished=True))
    with Bar(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def status(quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """A function that shows a text on stderr until the block ends. Print nothing meanwhile."""
    if quiet or not fancy():
        yield lambda text: None
        return

    def show(text: str) -> None:  # nothing that moves: it would take time from what is measured
        sys.stderr.write(f"\r\x1b[2K{text}")
        sys.stderr.flush()

    try:
        yield show
    finally:
        show("")


def located(model: str | None, quiet: bool = False) -> Located:
    """What -m means, downloaded with a progress bar if need be."""
    from pyllama.locate import locate

    with progress_bar(f"pulling {model}", quiet) as progress, usage_errors():
        return locate(model, progress)


def open_llm(model: Located, *, quiet: bool = False, quantize: str | None = None, **options: Any) -> LLM:
    """The LLM with a progress bar. Values out of range are usage errors."""
    from pyllama.llm import LLM

    with progress_bar(f"loading {os.path.basename(model.path)}", quiet) as progress, usage_errors():
        return LLM(model.path, progress=progress, quantize=quantize or model.quantize, **options)


def binary_size(n: int) -> str:
    """Bytes as MiB or GiB, in llama-bench's way."""
    return f"{n / 2**30:.2f} GiB" if n >= 1 << 30 else f"{n / 2**20:.2f} MiB"


def count(n: int) -> str:
    """Parameters as M or B, in llama-bench's way."""
    return f"{n / 1e9:.2f} B" if n >= 10**9 else f"{n / 1e6:.2f} M"


def printable(text: str) -> str:
    """A file's text without what would command the terminal."""
    return text if text.isprintable() else ascii(text)[1:-1]
