"""`pyllama tokenize`: the token ids of a text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from .common import located, printable
from .options import with_options
from .run import read_prompt

if TYPE_CHECKING:
    from pyllama.tokenizer import Tokenizer

OPTIONS = (
    click.option(
        "-m",
        "--model",
        metavar="MODEL",
        help="As for run, or a tokenizer.json or tokenizer.model.",
    ),
    click.option("-p", "--prompt", metavar="TEXT", help="The text; it may be empty."),
    click.option(
        "-f",
        "--file",
        metavar="FILE",
        help="Read the text from a file, - for stdin; one newline at its end is dropped.",
    ),
    click.option("--no-bos", is_flag=True, help="No BOS and EOS, even if the model wants them."),
    click.option(
        "--special",
        "--parse-special",
        is_flag=True,
        help="Spellings of special tokens, such as </s>, are those tokens.",
    ),
    click.option("--ids", "ids_only", is_flag=True, help="Print the ids as a list, on one line."),
    click.option(
        "-o",
        "--output",
        type=click.Choice(("text", "json")),
        default="text",
        show_default=True,
        help="A line for each token, or one JSON object.",
    ),
)


def shown(tokenizer: Tokenizer, token: int) -> str:
    """What a token stands for: its text in quotes, or its bytes if they are no whole characters."""
    data = tokenizer.token_bytes(token)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return repr(data)
    return f"'{printable(text)}'"


@click.command(short_help="Print the token ids of a text.")
@with_options(OPTIONS)
def command(
    model: str | None,
    prompt: str | None,
    file: str | None,
    no_bos: bool,
    special: bool,
    ids_only: bool,
    output: str,
) -> None:
    """Print the token ids of a text, and what each stands for."""
    from pyllama.tokenizer import Tokenizer

    text = read_prompt(prompt, file)
    path = located(model).path
    tokenizer = Tokenizer.from_file(path)
    ids = tokenizer.encode(text, add_bos=not no_bos, special=special)
    if output == "json":
        pieces = [tokenizer.piece(i) for i in ids]
        result = {"model": path, "n_tokens": len(ids), "ids": ids} | ({} if ids_only else {"pieces": pieces})
        click.echo(json.dumps(result, ensure_ascii=False))
    elif ids_only:
        click.echo(str(ids))
    else:
        for i in ids:
            click.echo(f"{i:6} -> {shown(tokenizer, i)}")
