"""Text <-> token ids.

`Tokenizer` is the one interface, whatever the kind of vocabulary; it owns BOS and EOS, special
tokens, `decode` and `stream`. A subclass says how plain text becomes ids and what bytes a piece
stands for: `pyllama.spm`. Special tokens spelled in text are text unless asked.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeVar

from pyllama.errors import ModelLoadError, UnsupportedModelError
from pyllama.weights.gguf_header import load_error, show

# What a piece is; the numbers are those of GGUF and of SentencePiece's ModelProto.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
HIDDEN: Final = (UNKNOWN, CONTROL)
SPACE: Final = "\u2581"  # how a SentencePiece vocabulary spells a space
MAX_MODEL_BYTES: Final = 32 << 20  # several times the largest tokenizer.model known

T = TypeVar("T", bool, str)


@dataclass(frozen=True)
class Vocabulary:
    """What a file says of its vocabulary. `field` is the name of the pieces in error messages."""

    path: str
    field: str
    pieces: list[str]
    scores: bytes  # of little-endian float32
    types: bytes
    bos_id: int | None
    eos_id: int | None
    unk_id: int | None
    stop_ids: frozenset[int]
    add_bos: bool = True
    add_eos: bool = False
    space_prefix: bool = True
    trim_spaces: bool = False

    def bad(self, i: int, expected: str) -> ModelLoadError:
        """The error about piece `i`."""
        return load_error(self.path, f"{self.field}[{i}]", expected, show(self.pieces[i]))


class TokenStream:
    """Turns ids into text one by one; special tokens are hidden. Made by `Tokenizer.stream`."""

    __slots__ = ("_bytes", "_decode", "_drop_space")

    def __init__(self, piece_bytes: list[bytes], drop_space: bool) -> None:
        self._bytes = piece_bytes
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._drop_space = drop_space

    def put(self, token: int) -> str:
        """The text that `token` completes: "" while a character is still without its last bytes.

        Raises ValueError for an id outside the vocabulary.
        """
        if not 0 <= token < len(self._bytes):
            raise _bad_id(token, len(self._bytes))
        data = self._bytes[token]
        if self._drop_space and data:
            self._drop_space = False
            data = data.removeprefix(b" ")
        return self._decode(data)

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that never came to its end, else ""."""
        return self._decode(b"", True)


class Tokenizer(ABC):
    """Text <-> token ids of one model. Immutable: any thread may call it."""

    def __init__(self, vocab: Vocabulary, drops_space: bool) -> None:
        self._pieces, self._types = vocab.pieces, vocab.types
        self._bos_id, self._eos_id, self._stop_ids = vocab.bos_id, vocab.eos_id, vocab.stop_ids
        self._head = [vocab.bos_id] if vocab.add_bos and vocab.bos_id is not None else []
        self._tail = [vocab.eos_id] if vocab.add_eos and vocab.eos_id is not None else []
        self._drops_space = drops_space

    @staticmethod
    def from_file(path: str | os.PathLike[str]) -> Tokenizer:
        """The tokenizer of a GGUF file or of a SentencePiece `tokenizer.model`, told by content.

        Raises OSError if the file cannot be read, ModelLoadError if it is broken, and
        UnsupportedModelError for a folder, a tokenizer.json or an unknown kind of vocabulary.
        """
        path = os.fsdecode(path)
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise unsupported(path, "file", "a GGUF file or a tokenizer.model", "a folder")
        if not stat.S_ISREG(status.st_mode):  # to open a FIFO would wait for its writer
            raise load_error(path, "file", "a regular file", stat.filemode(status.st_mode))
        with open(path, "rb") as file:
            magic = file.read(4)
            if magic != b"GGUF":
                if status.st_size > MAX_MODEL_BYTES:
                    most = f"a GGUF file or <= {MAX_MODEL_BYTES} bytes"
                    raise load_error(path, "file", most, f"{status.st_size} bytes")
                from pyllama.spm import SentencePieceTokenizer, read_model_proto

                return SentencePieceTokenizer(read_model_proto(magic + file.read(), path))
        from pyllama.weights.gguf import GGUFFile

        with GGUFFile(path) as gguf:
            return Tokenizer.from_gguf(gguf.metadata, path)

    @staticmethod
    def from_gguf(metadata: Mapping[str, Any], path: str) -> Tokenizer:
        """The tokenizer that the `tokenizer.ggml.*` keys of the file `path` describe.

        Raises ModelLoadError if they are missing or contradict each other, UnsupportedModelError
        if `tokenizer.ggml.model` is another kind of vocabulary; both name file, key and value.
        """
        keys = Keys(metadata, path)
        model = keys.get("model", str)
        if model != "llama":
            raise unsupported(path, "tokenizer.ggml.model", "'llama'", show(model))
        from pyllama.spm import SentencePieceTokenizer, read_gguf

        return SentencePieceTokenizer(read_gguf(keys))

    @property
    def vocab_size(self) -> int:
        """How many ids there are: 0 <= id < vocab_size."""
        return len(self._pieces)

    @property
    def bos_id(self) -> int | None:
        """The token that begins a text, if the model has one."""
        return self._bos_id

    @property
    def eos_id(self) -> int | None:
        """The token that ends a text, if the model has one."""
        return self._eos_id

    @property
    def stop_ids(self) -> frozenset[int]:
        """The tokens that end a generation: end of text, of turn, of message."""
        return self._stop_ids

    @property
    def add_bos(self) -> bool:
        """Whether `encode` begins with BOS, by the word of the model."""
        return bool(self._head)

    def piece(self, token: int) -> str:
        """The vocabulary's own spelling of a token; ValueError if there is no such id."""
        if not 0 <= token < len(self._pieces):
            raise _bad_id(token, len(self._pieces))
        return self._pieces[token]

    def encode(self, text: str, add_bos: bool = True, special: bool = False) -> list[int]:
        """The ids of `text`, after BOS and before EOS if `add_bos` and the model wants them.

        With `special`, spellings of special and user-defined tokens become their ids, the longest
        first, and a text that begins with BOS gets no second one. Without it, "</s>" is text.
        Raises TypeError if `text` is no str, ValueError if it has a lone surrogate.
        """
        if not isinstance(text, str):
            raise TypeError(f"text: expected str, found {type(text).__name__}")
        try:
            text.encode()
        except UnicodeEncodeError as e:
            what = f"text: lone surrogate {text[e.start]!a} at position {e.start}"
            raise ValueError(what) from None
        ids: list[int] = []
        # Each part is a text of its own and gets the dummy prefix, as in Llama 2's reference code,
        # which encodes every turn alone, and in llama.cpp and transformers' fast tokenizers.
        for part in self._specials.split(text) if special else (text,):
            ids += (part,) if isinstance(part, int) else self._encode_text(part)
        if not add_bos:
            return ids
        begun = special and ids[:1] == self._head
        return ids + self._tail if begun else self._head + ids + self._tail

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of `ids`; bytes that are no UTF-8 become U+FFFD.

        decode(encode(text)) == text, except that SentencePiece cannot tell U+2581 from a space.
        Unknown and control tokens are left out, or spelled out if not `skip_special`.
        Raises ValueError for an id outside the vocabulary.
        """
        table, pieces, types = self._piece_bytes, self._pieces, self._types
        drop_space, parts = self._drops_space, []
        if isinstance(ids, (str, bytes)):
            raise TypeError(f"ids: expected token ids, found {ids!r:.80}")
        for token in ids:
            if not 0 <= token < len(table):
                raise _bad_id(token, len(table))
            data = table[token]
            if drop_space and data:
                drop_space = False
                data = data.removeprefix(b" ")
            elif not skip_special and types[token] in HIDDEN:
                data = pieces[token].encode()
            parts.append(data)
        return b"".join(parts).decode("utf-8", "replace")

    def stream(self, prompt_ids: Iterable[int] = ()) -> TokenStream:
        """A TokenStream of text that continues `prompt_ids`.

        After a prompt the first piece keeps its leading space; without one (BOS does not count)
        the space is the tokenizer's own and is dropped, as `decode` does.
        Raises ValueError for an id outside the vocabulary.
        """
        table, drop_space = self._piece_bytes, self._drops_space
        for token in prompt_ids:
            if not 0 <= token < len(table):
                raise _bad_id(token, len(table))
            drop_space = drop_space and not table[token]
        return TokenStream(table, drop_space)

    @abstractmethod
    def _encode_text(self, text: str) -> list[int]:
        """The ids of a text without special tokens."""

    @abstractmethod
    def _bytes_of(self, piece: str, kind: int) -> bytes:
        """The bytes that a piece stands for in a text."""

    @cached_property
    def _piece_bytes(self) -> list[bytes]:
        """The bytes of each id, none for hidden tokens."""
        pairs = zip(self._pieces, self._types, strict=True)
        return [b"" if kind in HIDDEN else self._bytes_of(piece, kind) for piece, kind in pairs]

    @cached_property
    def _specials(self) -> Matcher:
        kinds = (*HIDDEN, USER_DEFINED)
        found = [(p, i) for i, p in enumerate(self._pieces) if p and self._types[i] in kinds]
        return Matcher({piece.replace(SPACE, " "): i for piece, i in reversed(found)})


class Matcher:
    """Cuts a text at the occurrences of given strings, from the left, the longest first."""

    def __init__(self, ids: dict[str, int]) -> None:
        self._ids = ids
        lengths: dict[str, set[int]] = {}
        for key in ids:
            lengths.setdefault(key[:2], {1} if key[0] in ids else set()).add(len(key))
        # By the first two characters: vocabularies with thousands of tags share the first.
        self._lengths = {head: sorted(n, reverse=True) for head, n in lengths.items()}
        heads = "".join(re.escape(c) for c in {key[0] for key in ids})
        self._search = re.compile(f"[{heads}]" if heads else "(?!)").search

    def split(self, text: str) -> Iterator[str | int]:
        """The parts of `text` in order: the ids of the strings found, the text between them."""
        start = at = 0
        while found := self._search(text, at):
            i = found.start()
            at = i + 1
            for n in self._lengths.get(text[i : i + 2]) or self._lengths.get(text[i], []):
                token = self._ids.get(text[i : i + n])
                if token is not None:
                    if start < i:
                        yield text[start:i]
                    yield token
                    start = at = i + n
                    break
        if start < len(text):
            yield text[start:]


class Keys:
    """The `tokenizer.ggml.*` keys of a GGUF file, each checked when it is asked for."""

    def __init__(self, metadata: Mapping[str, Any], path: str) -> None:
        self.path = path
        self._metadata = metadata

    def _value(self, name: str) -> Any:
        return self._metadata.get(f"tokenizer.ggml.{name}")

    def bad(self, name: str, expected: str, found: Any) -> ModelLoadError:
        found = "no such key" if found is None else show(found)
        return load_error(self.path, f"tokenizer.ggml.{name}", expected, found)

    def get(self, name: str, kind: type[T], default: T | None = None) -> T:
        value = self._value(name)
        value = default if value is None else value
        if not isinstance(value, kind):
            raise self.bad(name, f"a {kind.__name__}", value)
        return value

    def array(self, name: str, n: int | None = None) -> list[Any]:
        value = self._value(name)
        items = value.tolist() if hasattr(value, "tolist") else value
        if not isinstance(items, list) or not items or n not in (None, len(items)):
            raise self.bad(name, f"an array of {n or 'one or more'} elements", value)
        return items

    def token(self, name: str, n: int) -> int | None:
        value = self._value(f"{name}_token_id")
        if value is None or (type(value) is int and 0 <= value < n):
            return value
        raise self.bad(f"{name}_token_id", f"a token id < {n}", value)


def _bad_id(token: int, n: int) -> ValueError:
    return ValueError(f"token id: expected 0 <= id < {n} (vocab_size), found {token}")


def unsupported(path: str, field: str, expected: Any, found: Any) -> ModelLoadError:
    return load_error(path, field, expected, found, UnsupportedModelError)
