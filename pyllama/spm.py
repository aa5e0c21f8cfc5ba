"""SentencePiece vocabularies: from GGUF metadata or a tokenizer.model to a Tokenizer."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from pyllama.matcher import Matcher
from pyllama.tokenizer import Tokenizer
from pyllama.vocabulary import (
    BYTE,
    CONTROL,
    HIDDEN,
    NORMAL,
    SPACE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Flags,
    Keys,
    Vocabulary,
    gguf_fields,
    unsupported,
)
from pyllama.weights.gguf_header import load_error, show

BYTE_PIECE: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")
MAX_SCORE: Final = 3.4e38  # float32's
LLAMAS: Final = (("bos", 1, CONTROL), ("eos", 2, CONTROL), ("unknown", 0, UNKNOWN))


@dataclass(frozen=True, kw_only=True)
class SentencePieceVocabulary(Vocabulary):
    """A Vocabulary with scores for merges, and what becomes of the spaces of a text."""

    scores: bytes  # of little-endian float32

    space_prefix: bool = True
    prefix_parts: bool = True  # each part between special tokens gets it, not only the first
    trim_spaces: bool = False


class SentencePieceTokenizer(Tokenizer):
    """SentencePiece's BPE with byte fallback, as of Llama 1 and 2, Mistral, TinyLlama.

    The library only ever sees a model that is built here from checked pieces, and only as the
    encoder of plain text. What text must not produce has a name in it that text cannot spell.
    """

    def __init__(self, vocab: SentencePieceVocabulary) -> None:
        super().__init__(vocab, drops_space=vocab.space_prefix)
        self._space_prefix, self._prefix_parts = vocab.space_prefix, vocab.prefix_parts
        self._trim_spaces, self._flags = vocab.trim_spaces, vocab.flags
        self._unk_id, self._has_bytes = vocab.unk_id, _has_bytes(vocab)
        # Not left to the library: 0.2.0 crashes if more than 64 symbols begin one another.
        self._user_defined = Matcher(_unique(vocab, USER_DEFINED))
        self._encode_pieces = _load(_model_proto(vocab, self._has_bytes), vocab)

    def _encode(self, text: str, special: bool) -> list[int]:
        prefix, ids = self._space_prefix, list[int]()
        # Each part is a text of its own and gets the dummy prefix, as in Llama 2's reference code,
        # which encodes every turn alone, and in llama.cpp and transformers' fast tokenizers.
        for part in self._specials.split(text) if special else (text,):
            ids += (part,) if isinstance(part, int) else self._encode_text(part, prefix)
            prefix = prefix and self._prefix_parts
        return ids

    @cached_property
    def _specials(self) -> Matcher:
        kinds = (*HIDDEN, USER_DEFINED)
        found = [(p, i) for i, p in enumerate(self._pieces) if p and self._types[i] in kinds]
        return Matcher({piece.replace(SPACE, " "): i for piece, i in reversed(found)}, self._flags)

    def _encode_text(self, text: str, prefix: bool) -> list[int]:
        if self._trim_spaces:
            text = " ".join(filter(None, text.split(" ")))
        if not text:
            return []
        text = (" " + text if prefix else text).replace(" ", SPACE)
        ids: list[int] = []
        for part in self._user_defined.split(text):
            ids += (part,) if isinstance(part, int) else self._encode_pieces(part)
        if self._has_bytes:
            return ids
        unknown, n = self._unk_id, len(self._pieces)
        return [unknown if i == n and unknown is not None else i for i in ids]


def read_gguf(keys: Keys) -> SentencePieceVocabulary:
    """The vocabulary in a GGUF file's metadata. Absent BOS, EOS and UNK default to Llama's."""
    fields = gguf_fields(keys, add_bos=True, usual=LLAMAS)
    pieces, flags = fields["pieces"], {}
    if keys.metadata.get("general.architecture") == "phi3":  # GGUF has no field for it
        plain = ("<unk>", "<s>", "<|endoftext|>")
        special = [i for i, kind in enumerate(fields["types"]) if kind in (CONTROL, USER_DEFINED)]
        flags = {i: Flags(rstrip=True) for i in special if pieces[i] not in plain}
    return SentencePieceVocabulary(
        **fields,
        flags=flags,
        scores=_read_scores(keys, len(pieces)),
        space_prefix=keys.get("add_space_prefix", bool, True),
        trim_spaces=keys.get("remove_extra_whitespaces", bool, False),
    )


def _read_scores(keys: Keys, n: int) -> bytes:
    scores = keys.array("scores", n)
    for i, score in enumerate(scores):
        if not isinstance(score, (int, float)) or not abs(score) <= MAX_SCORE:
            raise keys.bad(f"scores[{i}]", "a finite float32", score)
    return struct.pack(f"<{n}f", *scores)


def read_model_proto(data: bytes, path: str) -> SentencePieceVocabulary:
    """The vocabulary of a `tokenizer.model`, a serialized sentencepiece.ModelProto."""
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
            raise unsupported(path, field, expected, show(found))


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
) -> SentencePieceVocabulary:
    trainer, normalizer, _ = specs.values()
    for i, (score,) in enumerate(struct.iter_unpack("<f", scores)):
        if not abs(score) <= MAX_SCORE:
            raise load_error(path, f"pieces[{i}].score", "a finite float32", score)
        if not NORMAL <= types[i] <= BYTE:
            raise load_error(path, f"pieces[{i}].type", f"{NORMAL} to {BYTE}", types[i])
    control = {p.encode(): i for i, p in enumerate(pieces) if types[i] == CONTROL}
    return SentencePieceVocabulary(
        path=path,
        field="pieces",
        pieces=pieces,
        scores=scores,
        types=types,
        bos_id=control.get(trainer.get(46) or b"<s>"),
        eos_id=control.get(trainer.get(47) or b"</s>"),
        unk_id=types.find(UNKNOWN) if UNKNOWN in types else None,
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


def _model_proto(vocab: SentencePieceVocabulary, byte_fallback: bool) -> bytes:
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
