"""The command line: `pyllama <command>`.

    run           continue a prompt               common    messages, loading a model
    chat          a conversation                  options   of several commands
    tokenize      the token ids of a text         sampling_options  of run and chat
    bench         llama-bench's tables            facts     about a model file
      measure     its clock
      rows        its formats
    inspect_file  what a file holds and needs
    doctor        this machine, its kernels, its speed
    pull, ls      models of the hub: download, list
    tinymodel     write a random model to play with

A command is a module with a click command named `command` that returns an exit code or None.
stdout carries the result and nothing else. Exit codes: 0, 1 error, 2 usage, 130 Ctrl-C, 141 nobody
reads stdout any more.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence

import click

from pyllama import __version__
from pyllama.errors import PyllamaError

from .common import complain

EXIT_ERROR, EXIT_INTERRUPT, EXIT_PIPE = 1, 130, 141  # the last two as shells report the signals

_MODULES = {
    "run": "run",
    "chat": "chat",
    "tokenize": "tokenize",
    "bench": "bench",
    "inspect": "inspect_file",
    "doctor": "doctor",
    "pull": "pull",
    "ls": "ls",
    "tiny": "tinymodel",
}


class Commands(click.Group):
    """Imports a command when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of use, not of the alphabet."""
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name not in _MODULES:
            return None
        found: click.Command = importlib.import_module(f".{_MODULES[cmd_name]}", __name__).command
        return found


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pyllama", message="%(prog)s %(version)s")
def commands() -> None:
    """Inference for Llama-family models on CPUs."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line, by default sys.argv's; returns the exit code."""
    if sys.stderr is None:  # closed by the caller, who wants no messages
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is None:
        complain("stdout: expected an open file, found none")
        return EXIT_ERROR
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a model may say what the locale cannot
    try:
        code = _invoke(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return EXIT_INTERRUPT
    except BrokenPipeError:
        # What is still buffered must not fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except OSError as error:
        what = error.strerror or str(error)
        complain(what if error.filename is None else f"{os.fsdecode(error.filename)}: {what}")
    except (PyllamaError, MemoryError) as error:
        complain(str(error) or "out of memory")
    return EXIT_ERROR


def _invoke(args: list[str]) -> int:
    try:
        with commands.make_context("pyllama", args) as context:
            return commands.invoke(context) or 0
    except click.exceptions.Exit as stop:  # --help and --version
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        complain(error.format_message())
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(f"Try '{error.ctx.command_path} --help'.", err=True)
        return error.exit_code
