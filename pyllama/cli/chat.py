"""`pyllama chat`: a conversation, on the terminal or through a pipe."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyllama.chat_template import MAX_TEMPLATE, ChatTemplate
from pyllama.errors import PyllamaError

from .common import complain, fancy, located, note, open_llm, stdin, usage_errors
from .options import (
    cache_type_option,
    compute_option,
    hugepages_option,
    mlock_option,
    model_option,
    number,
    quantize_option,
    threads_option,
    with_options,
)
from .run import copy, utf8
from .sampling_options import SAMPLING, sampling_params

if TYPE_CHECKING:
    from pyllama.request import RequestOutput

    from .dialog import Dialog, Turn

HISTORY_LINES = 1000
QUOTES = '"""'
# What would command the terminal is shown as a picture of itself.
PICTURES = {i: 0x2400 + i for i in range(32) if chr(i) not in "\n\t"} | {127: 0x2421}
PICTURES |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def whisper(text: str) -> None:
    """A line on stderr that stands back, where there are colours."""
    dim = fancy() and "NO_COLOR" not in os.environ
    click.echo(click.style(text, dim=True) if dim else text, err=True)


# ---- a pipe


def answer_lines(dialog: Dialog) -> int:
    """Each line of stdin is a message, each answer goes to stdout; the exit code."""
    for n, line in enumerate(stdin(), 1):
        text = utf8(f"stdin: line {n}", line).strip()
        if not text:
            continue
        with usage_errors():
            turn = dialog.ask(text)
        if show(turn):
            return 130
        dialog.keep(turn)
    return 0


def show(turn: Turn) -> bool:
    """The answer to stdout; True if Ctrl-C ended it. A note if the conversation was cut for it."""
    if turn.dropped:
        note(f"the context is full: the oldest {_count(turn.dropped, 'message')} left out")
    try:
        return copy(turn.stream, write=True, table=PICTURES if sys.stdout.isatty() else None)
    finally:
        click.echo()


# ---- a terminal


@contextlib.contextmanager
def line_editing(words: list[str]) -> Iterator[None]:
    """Arrow keys, a history that lasts, and Tab for `words`; without any of them if there is no readline."""
    try:
        import readline
    except ImportError:
        yield
        return
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    file = Path(state, "pyllama", "history")
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    readline.set_history_length(HISTORY_LINES)
    readline.set_completer_delims("")
    readline.set_completer(lambda text, i: [*(w for w in words if text and w.startswith(text)), None][i])
    readline.parse_and_bind("tab: complete")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            readline.write_history_file(file)


def ask_line(prompt: str) -> str:
    """A line of the user's. Raises EOFError. Only a terminal gets the prompt on stdout."""
    if sys.stdout.isatty():
        return input(prompt)
    sys.stderr.write(prompt)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")


def ask_message() -> str:
    """A message: a line, lines that end with a backslash, or lines between triple quotes."""
    line = ask_line("> ")
    if line.lstrip().startswith(QUOTES):
        text = line.lstrip().removeprefix(QUOTES)
        while QUOTES not in text:
            text += "\n" + ask_line(". ")
        return text.partition(QUOTES)[0].strip("\n")
    text = line
    while text.endswith("\\"):
        text = text[:-1] + "\n" + ask_line(". ")
    return text


class Console:
    """The conversation on a terminal. The methods that commands() lists are what / does."""

    def __init__(self, dialog: Dialog, quiet: bool) -> None:
        self.dialog, self.quiet = dialog, quiet
        self.commands: dict[str, Callable[[str], None]] = {
            "help": self.help,
            "system": self.system,
            "reset": self.reset,
            "undo": self.undo,
            "save": self.save,
            "load": self.load,
            "exit": self.exit,
        }

    def run(self) -> int:
        """Reads and answers until Ctrl-D, /exit, or Ctrl-C twice; the exit code."""
        warned = False  # of the Ctrl-C that ends
        takes_argument = ("system", "save", "load")
        with line_editing([f"/{name}" + " " * (name in takes_argument) for name in self.commands]):
            while True:
                try:
                    text = ask_message().strip()
                    warned = False
                    self.act(text)
                except KeyboardInterrupt:
                    if warned:
                        click.echo(err=True)
                        return 0
                    warned = True
                    whisper("\n(Ctrl-C again, Ctrl-D or /exit ends the conversation)")
                except EOFError:
                    click.echo(err=True)
                    return 0
                except (PyllamaError, ValueError) as error:
                    complain(str(error))

    def act(self, text: str) -> None:
        """A command, or a message; //x is the message /x."""
        if not text.startswith("/") or text.startswith("//"):
            if text:
                self.answer(text.removeprefix("/") if text.startswith("//") else text)
            return
        name, _, argument = text[1:].partition(" ")
        found = {"quit": "exit", "?": "help"}.get(name, name)
        if found not in self.commands:
            raise ValueError(f"/{name}: no such command; /help lists them, //{name} is a message")
        self.commands[found](argument.strip())

    def answer(self, text: str) -> None:
        """Answers a message; Ctrl-C ends the answer, and what was said of it is kept."""
        turn = self.dialog.ask(text)
        stopped = show(turn)
        if not self.dialog.keep(turn):
            whisper("(no answer: the message is not kept)")
        elif fancy() and not self.quiet:
            whisper(stats(turn.stream.output, self.dialog.n_ctx, stopped))

    def help(self, _: str) -> None:
        """/help: this list"""
        for command in self.commands.values():
            usage, _, what = (command.__doc__ or "").partition(": ")
            whisper(f"  {usage:<14} {what}")
        whisper(
            f"  {QUOTES}            begins and ends a message of many lines; so does \\ at the end of a line"
        )
        whisper("  Ctrl-C         stops an answer; at the prompt, twice, it ends the conversation")

    def system(self, text: str) -> None:
        """/system TEXT: set the system message; without TEXT, show it"""
        if text:
            self.dialog.system = text
        shown = self.dialog.system
        whisper("no system message" if shown is None else f"system: {shown}".translate(PICTURES))

    def reset(self, _: str) -> None:
        """/reset: forget the conversation, but not the system message"""
        self.dialog.reset()
        whisper("the conversation begins anew")

    def undo(self, _: str) -> None:
        """/undo: forget the last message and its answer"""
        whisper("the last turn is forgotten" if self.dialog.undo() else "there is nothing to forget")

    def save(self, path: str) -> None:
        """/save FILE: write the messages as JSON"""
        with _named(path, "/save"):
            self.dialog.save(path)
        whisper(f"{path}: {_count(len(self.dialog.messages), 'message')} saved")

    def load(self, path: str) -> None:
        """/load FILE: go on with the messages of a file"""
        with _named(path, "/load"):
            self.dialog.load(path)
        whisper(f"{path}: {_count(len(self.dialog.messages), 'message')} loaded")

    def exit(self, _: str) -> None:
        """/exit: end; so does Ctrl-D"""
        raise EOFError


def stats(result: RequestOutput, n_ctx: int, stopped: bool) -> str:
    """The speed of an answer as one line."""
    t, n, made = result.timings, len(result.prompt_token_ids), len(result.outputs[0].token_ids)
    parts = [f"prompt {n}, {result.cached_tokens} cached, {t.prefill_tps:.1f} t/s"]
    parts.append(f"answer {made}" + (f", {t.decode_tps:.1f} t/s" if t.decode_tps > 0 else ""))
    parts.append(f"context {n + made} of {n_ctx}")
    if stopped:
        parts.append("stopped")
    elif result.outputs[0].finish_reason == "length":
        parts.append("cut: the context is full" if n + made >= n_ctx else "cut by -n")
    return f"[{' | '.join(parts)}]"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


@contextlib.contextmanager
def _named(path: str, command: str) -> Iterator[None]:
    """What goes wrong with the file of a command ends the command alone: a ValueError that names it."""
    if not path:
        raise ValueError(f"{command}: expected a file, found nothing")
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error


def read_template(path: str) -> str:
    """The text of --chat-template. No more is read than ChatTemplate takes."""
    with open(path, "rb") as file:
        data = file.read(MAX_TEMPLATE + 1)
    if len(data) > MAX_TEMPLATE:
        raise click.ClickException(f"{path}: expected a template of at most {MAX_TEMPLATE} bytes, found more")
    return utf8(path, data)


OPTIONS = (
    model_option(),
    click.option("-sys", "--system", "--system-prompt", "system", metavar="TEXT", help="The system message."),
    click.option(
        "--chat-template",
        "--chat-template-file",
        "template_file",
        metavar="FILE",
        help="A Jinja2 template instead of the model's own.",
    ),
    number("-n", "--n-predict", "max_tokens", default=-1, text="Most tokens of an answer; -1: no limit."),
    number("-c", "--ctx-size", "n_ctx", default=0, text="Tokens that are remembered; 0: the model's own."),
    threads_option,
    *SAMPLING,
    compute_option,
    quantize_option,
    cache_type_option,
    hugepages_option,
    mlock_option,
    click.option("-q", "--quiet", is_flag=True, help="No progress bar, no greeting, no timings on stderr."),
)


@click.command(short_help="Talk to a model.")
@with_options(OPTIONS)
def command(
    model: str | None, system: str | None, template_file: str | None, n_ctx: int, threads: int | None,
    compute: str, quantize: str | None, cache_type: str | None, no_hugepages: bool, mlock: bool, quiet: bool,
    **sampling: Any
) -> int:  # fmt: skip
    """Talk to a model, by its chat template.

    On a terminal, /help lists the commands; Ctrl-C stops an answer, Ctrl-D ends. Otherwise each line
    of stdin is a message. stdout gets the answers and nothing else.
    """
    sampling_params(sampling)  # what is wrong is said before a model is loaded
    text = None if template_file is None else read_template(template_file)
    with open_llm(
        located(model, quiet), quiet=quiet, n_ctx=n_ctx or None, n_threads=threads, compute=compute,
        quantize=quantize, kv_dtype=cache_type, max_batch=1, use_hugepages=not no_hugepages,
        use_mlock=mlock,
    ) as llm:  # fmt: skip
        from pyllama.chat import template_of

        from .dialog import Dialog

        if text is None:
            template = template_of(llm.tokenizer, llm.model.path)
        else:
            template = ChatTemplate(text, str(template_file))
        if system is not None:
            system = utf8("-sys", os.fsencode(system))
        params = sampling_params(sampling, llm.default_params)
        if sampling["seed"] == -1:  # drawn for each answer: the same question may be answered otherwise
            params = dataclasses.replace(params, seed=None)
        dialog = Dialog(llm, template, params, system)
        if sys.stdin is None or not sys.stdin.isatty():
            return answer_lines(dialog)
        if not quiet:
            whisper(
                f"{os.path.basename(llm.model.path)}, a context of {dialog.n_ctx} tokens. /help tells more."
            )
        return Console(dialog, quiet).run()
