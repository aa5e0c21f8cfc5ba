"""Text <-> token ids.

`Tokenizer` is the one interface, whatever the kind of vocabulary; it owns BOS and EOS, special
tokens, `decode` and `stream`. A subclass says how plain text becomes ids and what bytes a piece
stands for: `pyllama.spm`, `pyllama.bpe`. Special tokens spelled in text are text unless asked.
"""

from __future__ import annotations

import codecs
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from pyllama.vocabulary import BYTE, HIDDEN, SPACE, Keys, Vocabulary, unsupported
from pyllama.weights.gguf import GGUFFile
from pyllama.weights.gguf_header import load_error, show
from pyllama.weights.source import ModelSource


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
        self._chat_template = vocab.chat_template
        self._drops_space = drops_space

    @staticmethod
    def from_file(path: str | os.PathLike[str]) -> Tokenizer:
        """The tokenizer of a GGUF file, a tokenizer.json, a tokenizer.model or a Hugging Face folder.

        A file is told by content; alone it is read without the files beside it. In a folder
        tokenizer.json goes before tokenizer.model, and tokenizer_config.json, generation_config.json,
        config.json and chat_template.jinja are read if they are there.
        Raises OSError if a file cannot be read, ModelLoadError if it is broken, and
        UnsupportedModelError for another kind of vocabulary.
        """
        from pyllama.tokenizer_files import is_gguf, read_vocabulary

        path = os.fsdecode(path)
        if not is_gguf(path):
            return _tokenizer(read_vocabulary(path))
        with GGUFFile(path) as gguf:
            return Tokenizer.from_gguf(gguf.metadata, path)

    @staticmethod
    def from_gguf(metadata: Mapping[str, Any], path: str) -> Tokenizer:
        """The tokenizer that the `tokenizer.*` keys of the file `path` describe.

        Raises ModelLoadError if they are missing or contradict each other, UnsupportedModelError
        if `tokenizer.ggml.model` is another kind of vocabulary; both name file, key and value.
        """
        from pyllama import bpe, spm

        keys = Keys(metadata, path)
        model = keys.get("model", str)
        readers = {"llama": spm.read_gguf, "gpt2": bpe.read_gguf}
        if model not in readers:
            raise unsupported(path, "tokenizer.ggml.model", "'llama' or 'gpt2'", show(model))
        return _tokenizer(readers[model](keys).settled())

    @staticmethod
    def of_model(source: ModelSource, n: int) -> Tokenizer:
        """The tokenizer beside the weights of a model that has n token embeddings.

        Raises as from_file and from_gguf, and ModelLoadError if the two do not fit each other.
        """
        if isinstance(source, GGUFFile):
            tokenizer = Tokenizer.from_gguf(source.metadata, source.path)
        else:
            tokenizer = Tokenizer.from_file(source.path)
        if tokenizer.vocab_size != n:
            expected = f"{tokenizer.vocab_size} rows, one per token"
            raise load_error(source.path, "token_embd.weight", expected, n)
        return tokenizer

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
    def bos_token(self) -> str | None:
        """The spelling of `bos_id`, as chat templates use it."""
        return None if self._bos_id is None else self._pieces[self._bos_id]

    @property
    def eos_token(self) -> str | None:
        """The spelling of `eos_id`, as chat templates use it."""
        return None if self._eos_id is None else self._pieces[self._eos_id]

    @property
    def chat_template(self) -> str | None:
        """The Jinja template that turns messages into a prompt, if the model has one."""
        return self._chat_template

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

    def token_bytes(self, token: int) -> bytes:
        """What a token adds to a text, its spelling if it is special; ValueError if there is no such id."""
        if self.piece(token) and self._types[token] in HIDDEN:
            return self._pieces[token].encode()
        return self._piece_bytes[token]

    def spell(self, token: int) -> str:
        """What a token reads like alone: its leading space kept, special tokens spelled out, U+FFFD
        for bytes that are no whole character. ValueError if there is no such id."""
        return self.token_bytes(token).decode("utf-8", "replace")

    def encode(self, text: str, add_bos: bool = True, special: bool = False) -> list[int]:
        """The ids of `text`, after BOS and before EOS if `add_bos` and the model wants them.

        With `special`, spellings of special tokens become their ids, the longest first, and a text
        that begins with BOS gets no second one. Without it, "</s>" is text. User-defined tokens are
        found either way.
        Raises TypeError if `text` is no str, ValueError if it has a lone surrogate or a byte that the
        vocabulary lacks, PyllamaError if the library gives up (at ten million spaces in a row).
        """
        if not isinstance(text, str):
            raise TypeError(f"text: expected str, found {type(text).__name__}")
        try:
            text.encode()
        except UnicodeEncodeError as e:
            what = f"text: lone surrogate {text[e.start]!a} at position {e.start}"
            raise ValueError(what) from None
        ids = self._encode(text, special)
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
    def _encode(self, text: str, special: bool) -> list[int]:
        """The ids of `text` alone."""

    def _bytes_of(self, piece: str, kind: int) -> bytes:
        """The bytes that a piece stands for in a text: SentencePiece's way."""
        if kind == BYTE:
            return bytes((int(piece[3:5], 16),))
        return piece.replace(SPACE, " ").encode()

    @cached_property
    def _piece_bytes(self) -> list[bytes]:
        """The bytes of each id, none for hidden tokens."""
        pairs = zip(self._pieces, self._types, strict=True)
        return [b"" if kind in HIDDEN else self._bytes_of(piece, kind) for piece, kind in pairs]


def _tokenizer(vocab: Vocabulary) -> Tokenizer:
    from pyllama import bpe, spm

    if isinstance(vocab, bpe.BPEVocabulary):
        return bpe.BPETokenizer(vocab)
    assert isinstance(vocab, spm.SentencePieceVocabulary)
    return spm.SentencePieceTokenizer(vocab)


def _bad_id(token: int, n: int) -> ValueError:
    return ValueError(f"token id: expected 0 <= id < {n} (vocab_size), found {token}")
