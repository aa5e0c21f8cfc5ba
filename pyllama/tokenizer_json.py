"""tokenizer.json, the format of Hugging Face's `tokenizers`: BPE models, to a BPEVocabulary.

Its normalizer and pre-tokenizer are left to the library. The added tokens, the post-processor
(BOS and EOS) and the decoder are read here, as for every other kind of file.
"""

from __future__ import annotations

from typing import Any, Final

from pyllama.bpe import BPEVocabulary
from pyllama.spm import BYTE_PIECE
from pyllama.vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Flags,
    not_text,
    unsupported,
)
from pyllama.weights.gguf_header import MAX_ARRAY, load_error, show
from pyllama.weights.json_file import JsonObject

# What decoders of SentencePiece's kind consist of: type -> its fields, as they must be.
SPM_DECODERS: Final[dict[str, dict[str, Any]]] = {
    "Replace": {"pattern": {"String": SPACE}, "content": " "},
    "ByteFallback": {},
    "Fuse": {},
    "Strip": {"content": " ", "start": 1, "stop": 0},
    "Metaspace": {"replacement": SPACE},
}


class Pieces:
    """A vocabulary that is put together from a model and the tokens added to it."""

    def __init__(self, pieces: list[str], types: bytearray) -> None:
        self.pieces, self.types = pieces, types
        self.flags: dict[int, Flags] = {}

    def pad(self, n: int) -> None:
        """Ids up to n exist; those without a piece add nothing to a text."""
        more = max(n - len(self.pieces), 0)
        self.pieces += [""] * more
        self.types += bytes([UNUSED]) * more

    def add(self, entry: JsonObject, token: int, replace: bool = False) -> None:
        """An added token, as tokenizer.json and tokenizer_config.json describe them."""
        piece = entry.get("content", str)
        if not piece or not_text((piece,)):
            raise entry.bad("content", "a token's text")
        self.pad(token + 1)
        if not replace and self.pieces[token] not in ("", piece):
            raise entry.bad("content", f"{show(self.pieces[token])}, which has the id {token}")
        special = entry.get("special", bool) or False
        self.pieces[token] = piece
        self.types[token] = CONTROL if special else USER_DEFINED
        self.flags[token] = Flags(
            single_word=entry.get("single_word", bool) or False,
            lstrip=entry.get("lstrip", bool) or False,
            rstrip=entry.get("rstrip", bool) or False,
            normalized=(not special) if (given := entry.get("normalized", bool)) is None else given,
        )


def read_tokenizer_json(top: JsonObject) -> BPEVocabulary:
    """The vocabulary of a tokenizer.json. BOS and EOS are known if its post-processor adds them."""
    model = _model(top)
    found = _pieces(model)
    for entry in top.objects("added_tokens"):
        found.add(entry, token_id(entry, "id"))
    unk = model.get("unk_token", str)
    unk_id = found.pieces.index(unk) if unk in found.pieces else None
    if unk is not None and unk_id is None:
        raise model.bad("unk_token", "a piece of model.vocab")
    bos_id, eos_id = _added_ends(top, len(found.pieces))
    byte_level = _is_byte_level(top)
    return BPEVocabulary(
        path=top.path,
        field="model.vocab",
        pieces=found.pieces,
        types=bytes(found.types),
        flags=found.flags,
        bos_id=bos_id,
        eos_id=eos_id,
        unk_id=unk_id,
        add_bos=bos_id is not None,
        add_eos=eos_id is not None,
        merges_field="model.merges",
        merges=model.get("merges", list) or [],
        normalizer=top.values.get("normalizer"),
        pre_tokenizer=top.values.get("pre_tokenizer"),
        byte_level=byte_level,
        byte_fallback=model.get("byte_fallback", bool) or False,
        ignore_merges=model.get("ignore_merges", bool) or False,
        fuse_unk=model.get("fuse_unk", bool) or False,
        unk_token=unk,
        drops_space=not byte_level and _drops_space(top),
    )


def token_id(entry: JsonObject, key: str) -> int:
    """A token id, which must be there."""
    token = entry.get(key, int)
    if token is None or not 0 <= token < MAX_ARRAY:
        raise entry.bad(key, f"a token id < {MAX_ARRAY}")
    return token


def _model(top: JsonObject) -> JsonObject:
    model = top.object("model")
    if model is None:
        raise top.bad("model", "an object")
    if model.get("type", str) not in ("BPE", None):  # the first files did not say it
        raise unsupported(top.path, "model.type", "'BPE'", show(model.values["type"]))
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.values.get(key):
            raise unsupported(top.path, f"model.{key}", "none", show(model.values[key]))
    return model


def _pieces(model: JsonObject) -> Pieces:
    vocab = model.object("vocab")
    if vocab is None or not vocab.values:
        raise model.bad("vocab", "an object of one or more pieces")
    if problem := not_text(vocab.values):
        raise load_error(model.path, "model.vocab", "str without surrogates", problem)
    for piece, token in vocab.values.items():
        if type(token) is not int or not 0 <= token < MAX_ARRAY:
            raise vocab.bad(piece, f"a token id < {MAX_ARRAY}")
    found = Pieces([], bytearray())
    found.pad(max(vocab.values.values()) + 1)
    fallback = model.get("byte_fallback", bool)
    for piece, token in vocab.values.items():
        if found.types[token] != UNUSED:
            raise vocab.bad(piece, f"an id that {show(found.pieces[token])} does not have")
        found.pieces[token] = piece
        found.types[token] = BYTE if fallback and BYTE_PIECE.fullmatch(piece) else NORMAL
    unk = vocab.values.get(model.get("unk_token", str) or "")
    if unk is not None:
        found.types[unk] = UNKNOWN
    return found


def _flat(step: JsonObject | None, inner: str) -> list[JsonObject]:
    """The steps of a component, which may be a Sequence of Sequences."""
    if step is None:
        return []
    if step.get("type", str) != "Sequence":
        return [step]
    return [leaf for part in step.objects(inner) for leaf in _flat(part, inner)]


def _is_byte_level(top: JsonObject) -> bool:
    """Whether the pieces spell bytes by GPT-2's letters: they are made so, and read so."""
    made = any(s.get("type", str) == "ByteLevel" for s in _flat(top.object("pre_tokenizer"), "pretokenizers"))
    steps = _flat(top.object("decoder"), "decoders")
    read = made if not steps else any(s.get("type", str) == "ByteLevel" for s in steps)
    if made != read or (read and len(steps) > 1) or not (steps or made):
        names = ", ".join(str(s.get("type", str)) for s in steps)
        what = "ByteLevel" if made else "steps of a SentencePiece decoder"
        raise unsupported(top.path, "decoder", what, show(names or "none"))
    return made


def _drops_space(top: JsonObject) -> bool:
    """Whether a SentencePiece decoder takes a space from the beginning of a text."""
    drops = False
    for step in _flat(top.object("decoder"), "decoders"):
        kind = step.get("type", str)
        expected = SPM_DECODERS.get(kind or "")
        if expected is None:
            raise unsupported(top.path, step.field("type"), f"one of {', '.join(SPM_DECODERS)}", show(kind))
        for key, value in expected.items():
            if step.values.get(key) != value:
                raise unsupported(top.path, step.field(key), show(value), show(step.values.get(key)))
        never = step.values.get("prepend_scheme") == "never" or step.values.get("add_prefix_space") is False
        drops |= kind == "Strip" or (kind == "Metaspace" and not never)
    return drops


def _added_ends(top: JsonObject, n: int) -> tuple[int | None, int | None]:
    """The BOS and EOS of the post-processor's template."""
    ends: list[int | None] = [None, None]
    for step in _flat(top.object("post_processor"), "processors"):
        kind = step.get("type", str)
        if kind == "ByteLevel":  # it changes offsets only
            continue
        if kind != "TemplateProcessing":
            raise unsupported(top.path, step.field("type"), "TemplateProcessing or ByteLevel", show(kind))
        text = 0
        for part in step.objects("single"):
            token = part.object("SpecialToken")
            if token is None:
                text += 1
                continue
            if ends[text > 0] is not None or text > 1:
                what = "at most one special token before and after the text"
                raise unsupported(top.path, step.field("single"), what, "more")
            ends[text > 0] = _template_token(step, token, n)
    return ends[0], ends[1]


def _template_token(step: JsonObject, token: JsonObject, n: int) -> int:
    name = token.get("id", str)
    tokens = step.object("special_tokens")
    entry = None if tokens is None or name is None else tokens.object(name)
    ids = None if entry is None else entry.get("ids", list)
    if ids is None or len(ids) != 1 or type(ids[0]) is not int or not 0 <= ids[0] < n:
        where = step.field(f"special_tokens.{name}.ids")
        raise load_error(step.path, where, f"one token id < {n}", f"{ids!r:.60}")
    return ids[0]
