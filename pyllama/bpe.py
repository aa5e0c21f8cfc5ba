"""BPE by a list of merges: byte-level, as of GPT-2, Llama 3 and Qwen, or over characters with byte
fallback, as a tokenizer.json has it for the SentencePiece models of Llama 2 and Mistral.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pyllama.errors import ModelLoadError, PyllamaError
from pyllama.pretokenizers import PRETOKENIZERS
from pyllama.tokenizer import Tokenizer
from pyllama.vocabulary import (
    BYTE,
    HIDDEN,
    NORMAL,
    USER_DEFINED,
    Flags,
    Keys,
    Vocabulary,
    gguf_fields,
    unsupported,
)
from pyllama.weights.gguf_header import load_error, show

if TYPE_CHECKING:
    import tokenizers

Component = dict[str, Any] | None  # a tokenizer.json's normalizer or pre_tokenizer


def _byte_letters() -> list[str]:
    """The letter by which GPT-2 spells each byte: itself if it is visible, else one from U+0100 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = iter(range(0x100, 0x200))
    return [chr(byte if byte in visible else next(rest)) for byte in range(256)]


LETTERS: Final = _byte_letters()
# For str.translate: letters to Latin-1, what is no letter beyond it.
_TO_LATIN_1: Final = dict.fromkeys(range(256), 0xFFFF) | {ord(c): b for b, c in enumerate(LETTERS)}
_IN_UTF_8: Final = [b for b in range(0xF5) if b not in (0xC0, 0xC1)]  # the bytes that texts have


@dataclass(frozen=True, kw_only=True)
class BPEVocabulary(Vocabulary):
    """A Vocabulary with merges, first the one that is done first, and what goes before them.

    A merge is "left right" or [left, right]. The names are those of tokenizer.json.
    """

    merges_field: str
    merges: list[Any]
    normalizer: Component = None
    pre_tokenizer: Component = None
    byte_level: bool = True
    byte_fallback: bool = False
    ignore_merges: bool = False
    fuse_unk: bool = False
    unk_token: str | None = None  # what stands for a character that has no piece and no bytes
    drops_space: bool = False


def read_gguf(keys: Keys) -> BPEVocabulary:
    """The vocabulary in a GGUF file's metadata. UnsupportedModelError for an unknown pre-tokenizer."""
    name = keys.get("pre", str)
    pre = PRETOKENIZERS.get(name)
    if pre is None:
        raise unsupported(keys.path, "tokenizer.ggml.pre", f"one of {', '.join(PRETOKENIZERS)}", show(name))
    return BPEVocabulary(
        **gguf_fields(keys, add_bos=pre.add_bos),
        merges_field="tokenizer.ggml.merges",
        merges=keys.strings("merges"),
        pre_tokenizer=pre.component(),
        ignore_merges=pre.ignore_merges,
    )


class BPETokenizer(Tokenizer):
    """BPE by Hugging Face's `tokenizers`, which is built here from checked pieces and merges.

    The library's ids are the ranks of the pieces that text may produce, then the special tokens;
    what text must not produce is not in its vocabulary.
    """

    def __init__(self, vocab: BPEVocabulary) -> None:
        super().__init__(vocab, vocab.drops_space)
        self._path, self._byte_level = vocab.path, vocab.byte_level
        ids = [i for i, kind in enumerate(vocab.types) if kind not in HIDDEN and vocab.pieces[i]]
        if vocab.unk_token is not None and vocab.unk_id is not None and vocab.types[vocab.unk_id] in HIDDEN:
            ids.append(vocab.unk_id)
        ranks = {vocab.pieces[i]: rank for rank, i in enumerate(ids)}
        _check(vocab, ids, ranks)
        every_byte = vocab.byte_level and vocab.unk_token is None
        self._missing = frozenset(b for b in _IN_UTF_8 if every_byte and LETTERS[b] not in ranks)
        with _refusals(vocab.path, vocab.field):
            self._plain, self._special, self._ids = _load(vocab, ids, ranks)
            # A normalized token may take the space before it along, and gives it back.
            normalize = self._special.normalizer.normalize_str if vocab.normalizer else str
            pieces = {vocab.pieces[i] for i, flags in vocab.flags.items() if flags.normalized}
            self._normalized = {piece: normalize(piece) for piece in pieces}

    def _encode(self, text: str, special: bool) -> list[int]:
        if self._missing and (without := self._missing.intersection(text.encode())):
            byte = min(without)
            raise ValueError(f"text: byte 0x{byte:02x} has no token in the vocabulary of {self._path}")
        try:
            found = (self._special if special else self._plain).encode(text, add_special_tokens=False).ids
        except BaseException as e:
            if not _is_refusal(e):
                raise
            raise PyllamaError(
                f"{self._path}: no ids for a text of {len(text)} characters: {show(str(e))}"
            ) from e
        ids = self._ids
        return [ids[i] for i in found]

    def _bytes_of(self, piece: str, kind: int) -> bytes:
        piece = self._normalized.get(piece, piece)
        if not self._byte_level:
            return super()._bytes_of(piece, kind)
        if kind == NORMAL:
            with contextlib.suppress(UnicodeEncodeError):  # added tokens are often typed so
                return piece.translate(_TO_LATIN_1).encode("latin-1")
        return piece.encode()


def _check(vocab: BPEVocabulary, ids: list[int], ranks: dict[str, int]) -> None:
    """The error if a piece is spelled twice or some texts could have no ids."""
    if len(ranks) < len(ids):
        first, second = _repeated([vocab.pieces[i] for i in ids])
        raise vocab.bad(ids[second], f"no second spelling of piece {ids[first]}")
    unk = vocab.unk_token
    if unk is not None and unk not in ranks:
        raise load_error(vocab.path, vocab.field, f"the unknown token {show(unk)}", "no such piece")
    if not vocab.byte_level and unk is None:
        n = vocab.types.count(BYTE)
        if not vocab.byte_fallback or n != 256:
            what = "256 byte pieces and byte_fallback, or an unknown token"
            raise load_error(vocab.path, vocab.field, what, f"{n} byte pieces")


def _repeated(items: Sequence[Any]) -> tuple[int, int]:
    """Where the first item that comes again is, and where it comes again."""
    seen: dict[Any, int] = {}
    return next((seen[item], i) for i, item in enumerate(items) if seen.setdefault(item, i) != i)


def _parts(merge: Any) -> Sequence[Any]:
    return merge.split(" ", 1) if type(merge) is str else merge if type(merge) is list else ()


def _model(vocab: BPEVocabulary, ranks: dict[str, int]) -> Any:
    """The library's model of the merges.

    It checks them itself, in less time: only if it refuses one are they gone through here, for those to leave
    out or for what to say.
    """
    from tokenizers.models import BPE

    more = {} if vocab.unk_token is None else {"unk_token": vocab.unk_token}
    make = functools.partial(
        BPE,
        vocab=ranks,
        fuse_unk=vocab.fuse_unk,
        byte_fallback=vocab.byte_fallback,
        ignore_merges=vocab.ignore_merges,
        **more,
    )
    with contextlib.suppress(Exception):
        pairs = [tuple(_parts(merge)) for merge in vocab.merges]
        if len(set(pairs)) == len(pairs):  # of equal ones it would take the last
            return make(merges=pairs)
    return make(merges=_pairs(vocab, ranks))


def _pairs(vocab: BPEVocabulary, ranks: dict[str, int]) -> list[tuple[str, str]]:
    """The merges that text can use: those of or to special tokens are left out."""
    pairs: list[tuple[str, str]] = []
    known = None
    for i, merge in enumerate(vocab.merges):
        try:
            left, right = pair = tuple(_parts(merge))
            if left in ranks and right in ranks and left + right in ranks:
                pairs.append(pair)
                continue
            known = known or set(vocab.pieces)
            unknown = [part for part in (left, right, left + right) if part not in known]
        except (TypeError, ValueError):
            unknown = [merge]
        if unknown:
            found = show(unknown[0]) if isinstance(unknown[0], str) else type(unknown[0]).__name__
            raise load_error(vocab.path, f"{vocab.merges_field}[{i}]", "two pieces that make a third", found)
    if len(set(pairs)) < len(pairs):
        found = f"{show(' '.join(pairs[_repeated(pairs)[0]]))} twice"
        raise load_error(vocab.path, vocab.merges_field, "unique merges", found)
    return pairs


def _load(
    vocab: BPEVocabulary, ids: list[int], ranks: dict[str, int]
) -> tuple[tokenizers.Tokenizer, tokenizers.Tokenizer, list[int]]:
    """The library's encoders of plain text and of text with special tokens, and our ids of its own."""
    from tokenizers import Tokenizer as Backend

    model = _model(vocab, ranks)
    normalizer = _component(vocab, "normalizer", vocab.normalizer)
    pre_tokenizer = _component(vocab, "pre_tokenizer", vocab.pre_tokenizer)

    def backend(kinds: tuple[int, ...]) -> tokenizers.Tokenizer:
        made = Backend(model)
        if normalizer is not None:
            made.normalizer = normalizer
        if pre_tokenizer is not None:
            made.pre_tokenizer = pre_tokenizer
        made.add_tokens(_added(vocab, kinds))
        return made

    special = backend((USER_DEFINED, *HIDDEN))
    return backend((USER_DEFINED,)), special, _own_ids(vocab, ids, special)


def _own_ids(vocab: BPEVocabulary, ids: list[int], backend: tokenizers.Tokenizer) -> list[int]:
    """Our ids by the library's: `ids`, then those of the special tokens."""
    table = ids + [-1] * (backend.get_vocab_size() - len(ids))
    for i in range(len(vocab.pieces) - 1, -1, -1):  # of several spelled alike the first counts
        if vocab.types[i] in HIDDEN and vocab.pieces[i]:
            rank = backend.token_to_id(vocab.pieces[i])
            assert rank is not None  # it was added
            if rank < len(ids) and ids[rank] != i:
                raise vocab.bad(i, f"no second spelling of piece {ids[rank]}")
            table[rank] = i
    return table


def _added(vocab: BPEVocabulary, kinds: tuple[int, ...]) -> list[tokenizers.AddedToken]:
    from tokenizers import AddedToken

    plain = Flags()
    return [
        AddedToken(piece, special=kind != USER_DEFINED, **vocab.flags.get(i, plain)._asdict())
        for i, (piece, kind) in enumerate(zip(vocab.pieces, vocab.types, strict=True))
        if piece and kind in kinds
    ]


def _component(vocab: BPEVocabulary, name: str, component: Component) -> Any:
    """The library's object of a tokenizer.json's component."""
    from tokenizers import Tokenizer as Backend

    model = {"type": "BPE", "vocab": {}, "merges": []}
    with _refusals(vocab.path, name):
        return getattr(
            Backend.from_str(json.dumps({"version": "1.0", "model": model, name: component})), name
        )


@contextlib.contextmanager
def _refusals(path: str, field: str) -> Iterator[None]:
    """What the library refuses becomes a ModelLoadError about `field`."""
    try:
        yield
    except ModelLoadError:
        raise
    except BaseException as e:
        if not _is_refusal(e):
            raise
        raise load_error(path, field, "what the library `tokenizers` takes", show(str(e))) from e


def _is_refusal(e: BaseException) -> bool:
    """Whether the library said no: its panics are no Exceptions."""
    if isinstance(e, MemoryError):
        return False
    return isinstance(e, Exception) or type(e).__name__ == "PanicException"
