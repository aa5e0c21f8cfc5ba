"""Writes tokenizer.json files in the layouts of real models, with the library that defines them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


def byte_level(
    pieces: Sequence[str], merges: Sequence[tuple[str, str]], pattern: str, **model: Any
) -> Tokenizer:
    """Byte-level BPE without added tokens: Llama 3's and Qwen2's layout."""
    tokenizer = Tokenizer(BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=list(merges), **model))
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def sentencepiece(
    pieces: Sequence[str], scores: Sequence[float], layout: str = "prepend", scheme: str = "always"
) -> Tokenizer:
    """BPE over characters with byte fallback: Llama 2's layouts. Piece 0 is the unknown token.

    `layout`: "prepend", which normalizes, or "metaspace", which pre-tokenizes by `scheme`.
    """
    vocab = {p: i for i, p in enumerate(pieces)}
    merges = spm_merges(vocab, scores)
    model = BPE(vocab=vocab, merges=merges, unk_token=pieces[0], fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    strip = [decoders.Strip(" ", 1, 0)] if scheme != "never" else []
    if layout == "prepend":
        steps = [normalizers.Prepend("\u2581")] if scheme != "never" else []
        tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "\u2581")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", prepend_scheme=scheme, split=False)
    replace = decoders.Replace("\u2581", " ")
    tokenizer.decoder = decoders.Sequence([replace, decoders.ByteFallback(), decoders.Fuse(), *strip])
    return tokenizer


def spm_merges(vocab: Mapping[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """The merges that stand for a SentencePiece model's scores: all pairs of pieces that make one."""
    merges = []
    for piece, i in vocab.items():
        pairs = [(piece[:n], piece[n:]) for n in range(1, len(piece))]
        pairs = [(a, b) for a, b in pairs if a in vocab and b in vocab]
        pairs.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        merges += [(scores[i], len(a), len(b), a, b) for a, b in pairs]
    merges.sort(key=lambda merge: merge[:3], reverse=True)
    return [(a, b) for *_, a, b in merges]


def template(tokenizer: Tokenizer, bos: str) -> None:
    """BOS before every text."""
    token = (bos, tokenizer.token_to_id(bos))
    tokenizer.post_processor = processors.TemplateProcessing(f"{bos} $A", special_tokens=[token])


def added(content: str, special: bool = True, **flags: bool) -> AddedToken:
    """An added token that is not normalized unless asked."""
    return AddedToken(content, special=special, **{**dict.fromkeys(FLAGS, False), **flags})
