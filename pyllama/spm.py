"""SentencePiece vocabularies: from GGUF metadata or a tokenizer.model to a Tokenizer."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

from pyllama.tokenizer import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Keys,
    Matcher,
    Tokenizer,
    Vocabulary,
    unsupported,
)
from pyllama.weights.gguf_header import load_error, show

BYTE_PIECE: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")
MAX_SCORE: Final = 3.4e38  # float32's


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
        self._user_defined = Matcher(_unique(vocab, USER_DEFINED))
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


def read_gguf(keys: Keys) -> Vocabulary:
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


def _read_strings(keys: Keys, pieces: list[Any]) -> list[str]:
    try:
        "".join(pieces).encode()
    except (TypeError, UnicodeEncodeError) as e:
        raise keys.bad("tokens", "str without surrogates", str(e)) from None
    return list(pieces)  # the caller's list is not ours


def _read_types(keys: Keys, n: int) -> bytearray:
    types = keys.array("token_type", n)
    for i, kind in enumerate(types):
        if type(kind) is not int or not NORMAL <= kind <= BYTE:
            raise keys.bad(f"token_type[{i}]", f"{NORMAL} to {BYTE}", kind)
    return bytearray(types)


def _read_scores(keys: Keys, n: int) -> bytes:
    scores = keys.array("scores", n)
    for i, score in enumerate(scores):
        if not isinstance(score, (int, float)) or not abs(score) <= MAX_SCORE:
            raise keys.bad(f"scores[{i}]", "a finite float32", score)
    return struct.pack(f"<{n}f", *scores)


def read_model_proto(data: bytes, path: str) -> Vocabulary:
    """The vocabulary of a `tokenizer.model`, a serialized sentencepiece.ModelProto."""
    if data.lstrip()[:1] == b"{":
        raise unsupported(path, "file", "a GGUF file or a tokenizer.model", "a tokenizer.json")
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
