"""What a file says of its vocabulary, whatever the file: pieces, their types, special tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

from pyllama.errors import ModelLoadError, UnsupportedModelError
from pyllama.weights.gguf_header import load_error, show

# What a piece is; the numbers are those of GGUF and of SentencePiece's ModelProto.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
HIDDEN: Final = (UNKNOWN, CONTROL)
SPACE: Final = "\u2581"  # how a SentencePiece vocabulary spells a space

# How models spell the end of a text, a turn or a message. Files name one or two of them as EOS and
# EOT and leave the others to be found by their text, as llama.cpp does.
ENDS: Final = {
    "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<|eom|>", "<|end_of_text|>", "<|endoftext|>", "<|im_end|>",
    "<|end|>", "<|return|>", "<|call|>", "<end_of_turn>", "<end_of_utterance>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>", "</s>", "<eos>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]",
}  # fmt: skip
# Nobody writes these by accident. The others, such as Qwen2's 128247 "</s>", may be plain text.
UNMISTAKABLE: Final = ("<|", "<\uff5c", "<end_of_")

T = TypeVar("T", bool, str)
V = TypeVar("V", bound="Vocabulary")


class Flags(NamedTuple):
    """How a special or user-defined token is found in a text; the names are Hugging Face's."""

    single_word: bool = False  # not within a word
    lstrip: bool = False  # together with the whitespace before it
    rstrip: bool = False  # together with the whitespace after it
    normalized: bool = False  # in the normalized text


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Pieces and special tokens. `field` is the name of the pieces in error messages."""

    path: str
    field: str
    pieces: list[str]
    types: bytes
    bos_id: int | None = None
    eos_id: int | None = None
    unk_id: int | None = None
    stop_ids: frozenset[int] = frozenset()
    add_bos: bool = True
    add_eos: bool = False
    chat_template: str | None = None
    flags: Mapping[int, Flags] = dataclasses.field(default_factory=dict)

    def bad(self, i: int, expected: str) -> ModelLoadError:
        """The error about piece `i`."""
        return load_error(self.path, f"{self.field}[{i}]", expected, show(self.pieces[i]))

    def settled(self: V) -> V:
        """The same with every known end among stop_ids, and special tokens out of text's reach.

        Fine-tunes give BOS, EOS and ends any type; text must never produce one.
        """
        types, stops = bytearray(self.types), set(self.stop_ids)
        stops |= self._spelled_ends()
        if self.eos_id is not None:
            stops.add(self.eos_id)
        for token in (self.bos_id, self.unk_id, *stops):
            if token is not None and types[token] in (NORMAL, USER_DEFINED, UNUSED):
                types[token] = UNKNOWN if token == self.unk_id else CONTROL
        return dataclasses.replace(self, types=bytes(types), stop_ids=frozenset(stops))

    def _spelled_ends(self) -> set[int]:
        found: dict[str, int] = {}
        for i, piece in enumerate(self.pieces):
            if piece in ENDS and (self.types[i] != NORMAL or piece.startswith(UNMISTAKABLE)):
                found.setdefault(piece, i)
        if {"<|return|>", "<|call|>"} <= found.keys():
            found.pop("<|end|>", None)  # in OpenAI's harmony format it ends a message, not the turn
        return set(found.values())


class Keys:
    """The `tokenizer.*` keys of a GGUF file, each checked when it is asked for."""

    def __init__(self, metadata: Mapping[str, Any], path: str) -> None:
        self.path = path
        self.metadata = metadata

    def _value(self, name: str) -> Any:
        return self.metadata.get(f"tokenizer.ggml.{name}")

    def bad(self, name: str, expected: str, found: Any) -> ModelLoadError:
        """The error about the key `tokenizer.ggml.<name>`."""
        found = "no such key" if found is None else show(found)
        return load_error(self.path, f"tokenizer.ggml.{name}", expected, found)

    def get(self, name: str, kind: type[T], default: T | None = None) -> T:
        """A bool or str; the error if it has another type, or is missing without a default."""
        value = self._value(name)
        value = default if value is None else value
        if not isinstance(value, kind):
            raise self.bad(name, f"a {kind.__name__}", value)
        return value

    def array(self, name: str, n: int | None = None) -> list[Any]:
        """An array of n elements, by default of one or more."""
        value = self._value(name)
        items = value.tolist() if hasattr(value, "tolist") else value
        if not isinstance(items, list) or not items or n not in (None, len(items)):
            raise self.bad(name, f"an array of {n or 'one or more'} elements", value)
        return items

    def strings(self, name: str) -> list[str]:
        """A copy of an array of str: the caller's list is not ours."""
        items = self.array(name)
        if problem := not_text(items):
            raise self.bad(name, "str without surrogates", problem)
        return list(items)

    def token(self, name: str, n: int) -> int | None:
        """The id of `tokenizer.ggml.<name>_token_id`, if there is one."""
        value = self._value(f"{name}_token_id")
        if value is None or (type(value) is int and 0 <= value < n):
            return value
        raise self.bad(f"{name}_token_id", f"a token id < {n}", value)

    def chat_template(self) -> str | None:
        """The template of `tokenizer.chat_template`, if there is one."""
        value = self.metadata.get("tokenizer.chat_template")
        if value is None or isinstance(value, str):
            return value
        raise load_error(self.path, "tokenizer.chat_template", "a str", show(value))


def not_text(items: Iterable[Any]) -> str:
    """What is wrong if `items` are not all str that UTF-8 can encode, else ""."""
    try:
        "".join(items).encode()
    except (TypeError, UnicodeEncodeError) as e:
        return str(e)
    return ""


def gguf_fields(keys: Keys, *, add_bos: bool, usual: Iterable[tuple[str, int, int]] = ()) -> dict[str, Any]:
    """The fields of a Vocabulary that every GGUF file has.

    `usual`: which ids stand for absent ones, if their type is right. `add_bos` is what holds where
    the file does not say, if there is a BOS.
    """
    pieces = keys.strings("tokens")
    n = len(pieces)
    types = keys.array("token_type", n)
    for i, kind in enumerate(types):
        if type(kind) is not int or not NORMAL <= kind <= BYTE:
            raise keys.bad(f"token_type[{i}]", f"{NORMAL} to {BYTE}", kind)
    ids = {name: keys.token(name, n) for name in ("bos", "eos", "unknown", "eot", "eom")}
    keys.token("padding", n)
    for name, i, kind in usual:
        if ids[name] is None and i < n and types[i] == kind:
            ids[name] = i
    add = {
        "bos": keys.get("add_bos_token", bool, add_bos and ids["bos"] is not None),
        "eos": keys.get("add_eos_token", bool, False),
    }
    for name, wanted in add.items():
        if wanted and ids[name] is None:
            raise keys.bad(f"{name}_token_id", f"a token id, as add_{name}_token is true", None)
    return {
        "path": keys.path,
        "field": "tokenizer.ggml.tokens",
        "pieces": pieces,
        "types": bytes(types),
        "bos_id": ids["bos"],
        "eos_id": ids["eos"],
        "unk_id": ids["unknown"],
        "stop_ids": frozenset(t for k in ("eot", "eom") if (t := ids[k]) is not None),
        "add_bos": add["bos"],
        "add_eos": add["eos"],
        "chat_template": keys.chat_template(),
    }


def unsupported(path: str, field: str, expected: Any, found: Any) -> ModelLoadError:
    """The UnsupportedModelError of a well-formed file."""
    return load_error(path, field, expected, found, UnsupportedModelError)
