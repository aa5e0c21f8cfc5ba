"""Text <-> token ids.

`Tokenizer` is the one interface, whatever the kind of vocabulary; it owns BOS and EOS, special
tokens, `decode` and `stream`. A subclass says how plain text becomes ids and what bytes a piece
stands for: `SentencePieceTokenizer` here. Special tokens spelled in text are text unless asked.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeVar

from pyllama.errors import ModelLoadError, UnsupportedModelError
from pyllama.weights.gguf_header import load_error, show

# What a piece is; the numbers are those of GGUF and of SentencePiece's ModelProto.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
HIDDEN: Final = (UNKNOWN, CONTROL)
SPACE: Final = "\u2581"  # how a SentencePiece vocabulary spells a space
BYTE_PIECE: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")
MAX_MODEL_BYTES: Final = 32 << 20  # several times the largest tokenizer.model known
MAX_SCORE: Final = 3.4e38  # float32's

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
            raise _unsupported(path, "file", "a GGUF file or a tokenizer.model", "a folder")
        if not stat.S_ISREG(status.st_mode):  # to open a FIFO would wait for its writer
            raise load_error(path, "file", "a regular file", stat.filemode(status.st_mode))
        with open(path, "rb") as file:
            magic = file.read(4)
            if magic != b"GGUF":
                if status.st_size > MAX_MODEL_BYTES:
                    most = f"a GGUF file or <= {MAX_MODEL_BYTES} bytes"
                    raise load_error(path, "file", most, f"{status.st_size} bytes")
                return SentencePieceTokenizer(_read_model_proto(magic + file.read(), path))
        from pyllama.weights.gguf import GGUFFile

        with GGUFFile(path) as gguf:
            return Tokenizer.from_gguf(gguf.metadata, path)

    @staticmethod
    def from_gguf(metadata: Mapping[str, Any], path: str) -> Tokenizer:
        """The tokenizer that the `tokenizer.ggml.*` keys of the file `path` describe.

        Raises ModelLoadError if they are missing or contradict each other, UnsupportedModelError
        if `tokenizer.ggml.model` is another kind of vocabulary; both name file, key and value.
        """
        keys = _Keys(metadata, path)
        model = keys.get("model", str)
        if model != "llama":
            raise _unsupported(path, "tokenizer.ggml.model", "'llama'", show(model))
        return SentencePieceTokenizer(_read_gguf(keys))

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
    def _specials(self) -> _Matcher:
        kinds = (*HIDDEN, USER_DEFINED)
        found = [(p, i) for i, p in enumerate(self._pieces) if p and self._types[i] in kinds]
        return _Matcher({piece.replace(SPACE, " "): i for piece, i in reversed(found)})


class _Matcher:
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


class _Keys:
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


def _unsupported(path: str, field: str, expected: Any, found: Any) -> ModelLoadError:
    return load_error(path, field, expected, found, UnsupportedModelError)


class SentencePieceTokenizer(Tokenizer):
    """SentencePiece's BPE with byte fallback, as of Llama 1 and 2, Mistral, TinyLlama.

    The library only ever sees a model that is built here from checked pieces, and only as the
    encoder of plain text. What text must not produce has a name in it that text cannot spell.
    """

    def __init__(self, vocab: Vocabulary) -> None:
        super().__init__(vocab, drops_space=vocab.space_prefix)
        self._space_prefix, self._trim_spaces = vocab.space_prefix, vocab.trim_spaces
        self._unk_id, self._has_bytes = vocab.unk_id, _has_bytes(vocab)
        # Not left to the library: 0.2.0 crashes if more than 64 symbols begin one another.
        self._user_defined = _Matcher(_unique(vocab, USER_DEFINED))
        self._encode_pieces = _load(_model_proto(vocab, self._has_bytes), vocab)

    def _encode_text(self, text: str) -> list[int]:
        if self._trim_spaces:
            text = " ".join(filter(None, text.split(" ")))
        if not text:
            return []
        text = (" " + text if self._space_prefix else text).replace(" ", SPACE)
        ids: list[int] = []
        for part in self._user_defined.split(text):
            ids += (part,) if isinstance(part, int) else self._encode_pieces(part)
        if self._has_bytes:
            return ids
        unknown, n = self._unk_id, len(self._pieces)
        return [unknown if i == n and unknown is not None else i for i in ids]

    def _bytes_of(self, piece: str, kind: int) -> bytes:
        if kind == BYTE:
            return bytes((int(piece[3:5], 16),))
        return piece.replace(SPACE, " ").encode()


def _read_gguf(keys: _Keys) -> Vocabulary:
    """The vocabulary in a GGUF file's metadata. Absent BOS, EOS and UNK default to Llama's."""
    pieces = keys.array("tokens")
    n = len(pieces)
    types = _read_types(keys, n)
    ids = {name: keys.token(name, n) for name in ("bos", "eos", "unknown", "eot", "eom")}
    keys.token("padding", n)
    for name, i, kind in (("bos", 1, CONTROL), ("eos", 2, CONTROL), ("unknown", 0, UNKNOWN)):
        if ids[name] is None and i < n and types[i] == kind:
            ids[name] = i
    for name, token in ids.items():  # fine-tunes give them any type: never let text produce them
        if token is not None and types[token] in (NORMAL, USER_DEFINED, UNUSED):
            types[token] = UNKNOWN if name == "unknown" else CONTROL
    add_bos = keys.get("add_bos_token", bool, ids["bos"] is not None)
    add_eos = keys.get("add_eos_token", bool, False)
    for name, wanted in (("bos", add_bos), ("eos", add_eos)):
        if wanted and ids[name] is None:
            raise keys.bad(f"{name}_token_id", f"a token id, as add_{name}_token is true", None)
    return Vocabulary(
        path=keys.path,
        field="tokenizer.ggml.tokens",
        pieces=_read_strings(keys, pieces),
        scores=_read_scores(keys, n),
        types=bytes(types),
        bos_id=ids["bos"],
        eos_id=ids["eos"],
        unk_id=ids["unknown"],
        stop_ids=frozenset(t for k in ("eos", "eot", "eom") if (t := ids[k]) is not None),
        add_bos=add_bos,
        add_eos=add_eos,
        space_prefix=keys.get("add_space_prefix", bool, True),
        trim_spaces=keys.get("remove_extra_whitespaces", bool, False),
    )


def _read_strings(keys: _Keys, pieces: list[Any]) -> list[str]:
    try:
        "".join(pieces).encode()
    except (TypeError, UnicodeEncodeError) as e:
        raise keys.bad("tokens", "str without surrogates", str(e)) from None
    return list(pieces)  # the caller's list is not ours


def _read_types(keys: _Keys, n: int) -> bytearray:
    types = keys.array("token_type", n)
    for i, kind in enumerate(types):
        if type(kind) is not int or not NORMAL <= kind <= BYTE:
            raise keys.bad(f"token_type[{i}]", f"{NORMAL} to {BYTE}", kind)
    return bytearray(types)


def _read_scores(keys: _Keys, n: int) -> bytes:
    scores = keys.array("scores", n)
    for i, score in enumerate(scores):
        if not isinstance(score, (int, float)) or not abs(score) <= MAX_SCORE:
            raise keys.bad(f"scores[{i}]", "a finite float32", score)
    return struct.pack(f"<{n}f", *scores)


def _read_model_proto(data: bytes, path: str) -> Vocabulary:
    """The vocabulary of a `tokenizer.model`, a serialized sentencepiece.ModelProto."""
    if data.lstrip()[:1] == b"{":
        raise _unsupported(path, "file", "a GGUF file or a tokenizer.model", "a tokenizer.json")
    pieces: list[str] = []
    scores: list[bytes] = []
    types = bytearray()
    specs: dict[int, dict[int, Any]] = {2: {}, 3: {}, 5: {}}  # trainer, (de)normalizer
    try:
        for number, message in _fields(data):
            if number == 1:
                piece, score, kind = _parse_piece(message)
                pieces.append(piece.decode())
                scores.append(score)
                types.append(kind)
            elif number in specs:
                specs[number].update(_fields(message))
        if not pieces:
            raise ValueError("no pieces")
    except (AttributeError, IndexError, TypeError, ValueError) as e:
        what = f"after {len(pieces)} pieces: {type(e).__name__}: {e}"
        raise load_error(path, "file", "a sentencepiece ModelProto", what) from None
    _check_specs(specs, path)
    return _vocabulary(pieces, b"".join(scores), bytes(types), specs, path)


def _parse_piece(message: bytes) -> tuple[bytes, bytes, int]:
    """Spelling, packed score and type of a ModelProto.SentencePiece."""
    n = message[1] + 2
    if message[0] == 0x0A and n < 130 and message[n : n + 1] == b"\x15" and len(message) >= n + 5:
        tail = message[n + 5 :]  # the order that every writer keeps: five times as fast
        if not tail:
            return message[2:n], message[n + 1 : n + 5], NORMAL
        if len(tail) == 2 and tail[0] == 0x18:
            return message[2:n], message[n + 1 : n + 5], tail[1]
    fields = dict(_fields(message))
    piece, score, kind = fields.get(1, b""), fields.get(2, bytes(4)), fields.get(3, NORMAL)
    if not isinstance(piece, bytes) or not isinstance(score, bytes) or len(score) != 4:
        raise ValueError("a piece whose fields have other types")
    return piece, score, kind


def _check_specs(specs: dict[int, dict[int, Any]], path: str) -> None:
    trainer, normalizer, denormalizer = specs.values()
    for field, found, expected in (
        ("trainer_spec.model_type", trainer.get(3, 1), 2),  # BPE
        ("trainer_spec.treat_whitespace_as_suffix", trainer.get(24, 0), 0),
        ("normalizer_spec.precompiled_charsmap", normalizer.get(2, b""), b""),
        ("normalizer_spec.escape_whitespaces", normalizer.get(5, 1), 1),
        ("denormalizer_spec.precompiled_charsmap", denormalizer.get(2, b""), b""),
    ):
        if found != expected:
            raise _unsupported(path, field, expected, show(found))


def _varint(data: bytes, pos: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[pos]
        pos += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, pos
        shift += 7
    raise ValueError(f"a varint of more than 10 bytes at {pos}")


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a protobuf message: int, or bytes if not a varint.

    Raises IndexError or ValueError where the message is broken.
    """
    pos, end = 0, len(data)
    while pos < end:
        tag, pos = (data[pos], pos + 1) if data[pos] < 128 else _varint(data, pos)
        wire = tag & 7
        if wire == 0:
            value, pos = _varint(data, pos)
            yield tag >> 3, value
            continue
        if wire == 2:
            n, pos = (data[pos], pos + 1) if data[pos] < 128 else _varint(data, pos)
        elif wire in (1, 5):
            n = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at {pos}")
        if n > end - pos:
            raise ValueError(f"{n} bytes expected, {end - pos} found at {pos}")
        yield tag >> 3, data[pos : pos + n]
        pos += n


def _vocabulary(
    pieces: list[str], scores: bytes, types: bytes, specs: dict[int, dict[int, Any]], path: str
) -> Vocabulary:
    trainer, normalizer, _ = specs.values()
    for i, (score,) in enumerate(struct.iter_unpack("<f", scores)):
        if not abs(score) <= MAX_SCORE:
            raise load_error(path, f"pieces[{i}].score", "a finite float32", score)
        if not NORMAL <= types[i] <= BYTE:
            raise load_error(path, f"pieces[{i}].type", f"{NORMAL} to {BYTE}", types[i])
    control = {p.encode(): i for i, p in enumerate(pieces) if types[i] == CONTROL}
    eos = control.get(trainer.get(47) or b"</s>")
    return Vocabulary(
        path=path,
        field="pieces",
        pieces=pieces,
        scores=scores,
        types=types,
        bos_id=control.get(trainer.get(46) or b"<s>"),
        eos_id=eos,
        unk_id=types.find(UNKNOWN) if UNKNOWN in types else None,
        stop_ids=frozenset(() if eos is None else (eos,)),
        space_prefix=bool(normalizer.get(3, 1)),
        trim_spaces=bool(normalizer.get(4, 1)),
    )


def _unique(vocab: Vocabulary, *kinds: int) -> dict[str, int]:
    """Spelling in normalized text -> id, of all pieces of these kinds; text must reach each."""
    ids: dict[str, int] = {}
    for i in [i for i, kind in enumerate(vocab.types) if kind in kinds]:
        name = _spelling(vocab.pieces[i], vocab.types[i])
        if not name or "\0" in name:
            raise vocab.bad(i, "a piece that is not empty and has no NUL")
        if ids.setdefault(name, i) != i:
            raise vocab.bad(i, f"no second spelling of piece {ids[name]}")
    return ids


def _spelling(piece: str, kind: int) -> str:
    if kind == BYTE:
        return f"<0x{piece[3:].upper()}"
    return piece.replace(" ", SPACE) if kind == USER_DEFINED else piece


def _has_bytes(vocab: Vocabulary) -> bool:
    """Whether there is a piece for each byte. None at all is legal if there is an UNK."""
    found = [i for i, kind in enumerate(vocab.types) if kind == BYTE]
    for i in found:
        if not BYTE_PIECE.fullmatch(vocab.pieces[i]):
            raise vocab.bad(i, "a byte piece, <0x00> to <0xFF>")
    if len(found) not in (0, 256):
        raise load_error(vocab.path, vocab.field, "256 byte pieces or none", len(found))
    if not found and vocab.unk_id is None:
        raise load_error(vocab.path, vocab.field, "byte pieces or an unknown token", "neither")
    return bool(found)


def _model_proto(vocab: Vocabulary, byte_fallback: bool) -> bytes:
    """A serialized sentencepiece.ModelProto whose ids are those of `vocab`.

    Text has no spaces once they are escaped, so a name with a space in it is out of its reach:
    special, duplicate and padding pieces get one. The last piece is an UNK of our own, because
    the library wants exactly one and a GGUF may have 53 or none.
    """
    reachable = _unique(vocab, NORMAL, BYTE)
    out = []
    for i, (piece, kind) in enumerate(zip(vocab.pieces, vocab.types, strict=True)):
        name = _spelling(piece, kind)
        if kind == UNUSED and len(name) > 1 and "\0" not in name:
            reachable.setdefault(name, i)  # a step of merges, which the library undoes at the end
        if kind not in (NORMAL, BYTE, UNUSED) or reachable.get(name) != i or " " in name:
            name, kind = f" {i}", CONTROL
        out.append(_encode_piece(name.encode(), vocab.scores[4 * i : 4 * i + 4], kind))
    n = len(out)
    out.append(_encode_piece(f" {n}".encode(), bytes(4), UNKNOWN))
    # trainer_spec: model_type BPE, byte_fallback, unk_id
    trainer = b"\x18\x02\x98\x02%c\xc0\x02%b" % (byte_fallback, _varint_bytes(n))
    # normalizer_spec: name, then nothing but escape_whitespaces: the prefix comes once per text,
    # not once per call of the library
    normalizer = b"\x0a\x08identity\x18\x00\x20\x00\x28\x01"
    out.append(b"\x12%c%b\x1a%c%b" % (len(trainer), trainer, len(normalizer), normalizer))
    return b"".join(out)


def _encode_piece(name: bytes, score: bytes, kind: int) -> bytes:
    n = len(name)
    if n < 118:  # both lengths are varints of one byte
        return b"\x0a%c\x0a%c%b\x15%b\x18%c" % (n + 9, n, name, score, kind)
    message = b"\x0a%b%b\x15%b\x18%c" % (_varint_bytes(n), name, score, kind)
    return b"\x0a%b%b" % (_varint_bytes(len(message)), message)


def _varint_bytes(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def _load(model: bytes, vocab: Vocabulary) -> Callable[[str], list[int]]:
    """The library's encoder of plain text over a serialized ModelProto."""
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model)
    except Exception as e:  # which exceptions there are differs between releases
        raise load_error(vocab.path, vocab.field, "pieces for sentencepiece", show(str(e))) from e
    return processor.encode
