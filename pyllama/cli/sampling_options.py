"""The options of drawing tokens, llama.cpp's names, and the SamplingParams made of them."""

from __future__ import annotations

import dataclasses
import re
import secrets
from typing import TYPE_CHECKING, Any

import click

from .common import usage_errors
from .options import flatten, integers, number, real

if TYPE_CHECKING:
    from pyllama.sampling import SamplingParams

TOKEN_LISTS = ("allowed_token_ids", "banned_token_ids", "stop_token_ids")


class Bias(click.ParamType):  # type: ignore[type-arg]
    """A token id and what is added to its logit: 29905+1.5, 29905-1 or 29905=-1."""

    name = "bias"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, float]:
        """The two; ranges are checked by the library."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,10})(?:=(.+)|([+-].+))", str(value))
        try:
            if match:
                return int(match[1]), float(match[2] or match[3])
        except ValueError:
            pass
        self.fail(f"expected a token id and a number such as 29905+1.5, found {value!r}", param, ctx)


def sampling_params(options: dict[str, Any], defaults: SamplingParams | None = None) -> SamplingParams:
    """The options over the model's defaults; the seed is drawn here, to be told."""
    from pyllama.sampling import SamplingParams

    given = {name: value for name, value in options.items() if value is not None}
    seed, n = given.pop("seed"), given.pop("max_tokens")
    for name in TOKEN_LISTS:
        given[name] = flatten(given[name], ()) or None
    with usage_errors():
        given["logit_bias"] = _biases(given["logit_bias"])
        return dataclasses.replace(
            defaults or SamplingParams(),
            seed=secrets.randbits(32) if seed == -1 else seed,
            max_tokens=None if n == -1 else n,
            **given,
        )


def _biases(pairs: tuple[tuple[int, float], ...]) -> dict[int, float] | None:
    """The pairs as a dict, None if there are none. Raises ValueError for a token that comes twice."""
    biases: dict[int, float] = {}
    for token, bias in pairs:
        if biases.setdefault(token, bias) != bias:
            raise ValueError(
                f"logit_bias: expected one number for token {token}, found {biases[token]} and {bias}"
            )
    return biases or None


OWN = " By default the model's own choice, or none."
SAMPLING = (
    real("--temp", "temperature", default=None, text="Temperature; 0 takes the most probable token." + OWN),
    number("--top-k", default=None, least=0, text="Keep the k most probable; 0: all." + OWN),
    real(
        "--typical",
        "--typical-p",
        "typical_p",
        default=None,
        text="Keep the most typical that add up to p." + OWN,
    ),
    real("--top-p", default=None, text="Keep the most probable that add up to p." + OWN),
    real("--min-p", default=None, text="Drop what is less probable than p times the best." + OWN),
    real(
        "--repeat-penalty",
        "repetition_penalty",
        default=None,
        text="Logits of tokens seen are divided by this." + OWN,
    ),
    real("--frequency-penalty", default=0.0, text="Taken off a logit as often as the text has the token."),
    real("--presence-penalty", default=0.0, text="Taken off a logit if the text has the token."),
    number("--repeat-last-n", default=-1, text="Tokens that penalties look at; -1: all, 0: none."),
    click.option(
        "-l",
        "--logit-bias",
        type=Bias(),
        multiple=True,
        metavar="ID(+/-)BIAS",
        help="Add to the logit of a token; repeatable.",
    ),
    integers("--allowed-token-ids", text="Draw these tokens alone."),
    integers("--banned-token-ids", text="Never draw these tokens."),
    number("-s", "--seed", default=-1, text="Same seed, same text; -1 draws one."),
    click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; repeatable."),
    integers("--stop-token-ids", text="End at these tokens too."),
    click.option(
        "--include-stop", "include_stop_str_in_output", is_flag=True, help="Keep the stop in the text."
    ),
    number("--min-tokens", default=0, text="Neither ends nor stops before so many tokens."),
)
