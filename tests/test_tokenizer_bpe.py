"""Byte-level BPE of GGUF files: merges, pre-tokenizers, special tokens, and every error."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import ggufmodel
import pytest
from hftokenizer import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER
from hypothesis import given
from hypothesis import strategies as st

from pyllama import LLM, SamplingParams
from pyllama.bpe import LETTERS
from pyllama.errors import ModelLoadError, PyllamaError, UnsupportedModelError
from pyllama.pretokenizers import PRETOKENIZERS
from pyllama.tokenizer import Tokenizer

MERGES = ["h e", "l l", "he ll", "hell o", "\u0120 w", "o r", "1 2", "12 3", "i n", "\u0120 \u0120"]
PIECES = [(letter, NORMAL) for letter in LETTERS]
PIECES += [(merge.replace(" ", ""), NORMAL) for merge in MERGES]
PIECES += [("world", NORMAL), ("<tag>", USER), ("<|begin|>", CONTROL), ("<|eot_id|>", CONTROL)]
PIECES += [("</s>", NORMAL), ("[PAD]", UNUSED), ("", UNUSED), ("", NORMAL)]
ID = {piece: i for i, (piece, _) in reversed(list(enumerate(PIECES)))}
KEYS: dict[str, Any] = {
    "model": "gpt2",
    "pre": "gpt-2",
    "tokens": [piece for piece, _ in PIECES],
    "token_type": [kind for _, kind in PIECES],
    "merges": MERGES,
    "bos_token_id": ID["<|begin|>"],
}
PARTS = [
    "hello",
    " world",
    "1234",
    "in",
    "  ",
    "\n",
    "\u00e9",
    "\U0001f999",
    "\u6f22",
    "<tag>",
    "</s>",
    "<|eot_id|>",
]


def build(pieces: list[tuple[Any, int]] | None = None, **changes: Any) -> Tokenizer:
    """The synthetic tokenizer with other pieces or keys; None removes a key."""
    keys = dict(KEYS)
    if pieces is not None:
        keys["tokens"], keys["token_type"] = map(list, zip(*pieces, strict=True))
    metadata = {f"tokenizer.ggml.{k}": v for k, v in (keys | changes).items() if v is not None}
    return Tokenizer.from_gguf(metadata, "model.gguf")


def with_piece(i: int, piece: Any, kind: int | None = None) -> list[tuple[Any, int]]:
    return [*PIECES[:i], (piece, kind or PIECES[i][1]), *PIECES[i + 1 :]]


def spelled(tok: Tokenizer, text: str, **options: bool) -> list[str]:
    return [tok.piece(i) for i in tok.encode(text, **options)]


SYNTHETIC = build()


def test_merges_in_their_order() -> None:
    assert spelled(SYNTHETIC, "hello world") == ["hello", "\u0120w", "or", "l", "d"]
    assert spelled(SYNTHETIC, "helol") == ["he", "l", "o", "l"]
    assert spelled(SYNTHETIC, "\u00e9") == ["\u00c3", "\u00a9"]


@given(st.text(st.characters(codec="utf-8")) | st.lists(st.sampled_from(PARTS)).map("".join))
def test_decode_inverts_encode(text: str) -> None:
    ids = SYNTHETIC.encode(text)
    stream = SYNTHETIC.stream()
    assert SYNTHETIC.decode(ids) == text
    assert "".join([*map(stream.put, ids), stream.flush()]) == text
    assert not {ID["<|eot_id|>"], ID["<|begin|>"]} & set(ids)


def test_stream_equals_decode_for_any_ids() -> None:
    rng = random.Random(5)
    for _ in range(500):
        ids = rng.choices(range(SYNTHETIC.vocab_size), k=rng.randrange(20))
        stream = SYNTHETIC.stream()
        assert "".join([*map(stream.put, ids), stream.flush()]) == SYNTHETIC.decode(ids)


def test_special_tokens_only_if_asked_and_user_defined_always() -> None:
    assert spelled(SYNTHETIC, "hello<tag>hello") == ["hello", "<tag>", "hello"]
    assert spelled(SYNTHETIC, "<|eot_id|>hello", special=True) == ["<|eot_id|>", "hello"]
    assert "<|eot_id|>" not in spelled(SYNTHETIC, "<|eot_id|>hello")
    assert SYNTHETIC.decode([ID["<|eot_id|>"], ID["<tag>"], ID["[PAD]"], ID[""]]) == "<tag>[PAD]"
    assert SYNTHETIC.decode([ID["<|eot_id|>"]], skip_special=False) == "<|eot_id|>"
    assert SYNTHETIC.token_bytes(ID["<|eot_id|>"]) == b"<|eot_id|>"
    assert SYNTHETIC.token_bytes(ID["\u00c3"]) == b"\xc3"


def test_bos_by_the_file_or_by_the_pretokenizer() -> None:
    assert not SYNTHETIC.add_bos
    assert build(pre="llama-bpe").encode("") == [ID["<|begin|>"]]
    assert build(pre="llama-bpe", bos_token_id=None).encode("") == []
    assert build(pre="llama-bpe", add_bos_token=False).encode("") == []
    tok = build(add_bos_token=True, add_eos_token=True, eos_token_id=ID["<|eot_id|>"])
    for text in ("hello", "<|begin|>hello"):
        assert spelled(tok, text, special=True) == ["<|begin|>", "hello", "<|eot_id|>"]
    assert (tok.bos_token, tok.eos_token) == ("<|begin|>", "<|eot_id|>")
    assert (SYNTHETIC.bos_token, SYNTHETIC.eos_token) == ("<|begin|>", None)


def test_a_word_that_is_a_token_needs_no_merges_if_the_model_ignores_them() -> None:
    assert spelled(build(), "world") == ["w", "or", "l", "d"]
    assert spelled(build(pre="llama-bpe", add_bos_token=False), "world") == ["world"]
    assert spelled(build(pre="smaug-bpe"), "world") == ["world"]


def test_stops_are_found_by_their_spelling() -> None:
    """NORMAL "</s>" is text, as in Qwen2's vocabulary; <|im_end|> never is."""
    assert SYNTHETIC.stop_ids == {ID["<|eot_id|>"]}
    n = len(PIECES)
    tok = build([*PIECES, ("<|im_end|>", NORMAL), ("<end_of_turn>", USER)], eos_token_id=ID["world"])
    assert tok.stop_ids == {ID["<|eot_id|>"], ID["world"], n, n + 1}
    assert n not in tok.encode("<|im_end|>") and tok.encode("<|im_end|>", special=True) == [n]
    assert tok.decode([n, n + 1, ID["world"]]) == ""
    assert build(eot_token_id=ID["</s>"]).stop_ids == {ID["<|eot_id|>"], ID["</s>"]}
    harmony = [(f"<|{name}|>", CONTROL) for name in ("return", "call", "end")]
    assert build([*PIECES, *harmony]).stop_ids == {ID["<|eot_id|>"], n, n + 1}
    assert build([*PIECES, *harmony[1:]]).stop_ids == {ID["<|eot_id|>"], n, n + 1}


def test_text_never_becomes_a_special_token_by_merges() -> None:
    """Not even if the file's merges lead to it, or past it."""
    tok = build(with_piece(ID["hell"], "hell", CONTROL))
    assert spelled(tok, "hello") == ["he", "ll", "o"]
    assert spelled(tok, "hello", special=True) == ["hell", "o"]
    tok = build(pre="llama-bpe", add_bos_token=False, eos_token_id=ID["world"])
    assert "world" not in spelled(tok, "world")


def test_a_byte_without_a_token_is_an_error() -> None:
    tok = build(with_piece(0xA9, "\u4e00"))
    assert tok.decode(tok.encode("hello")) == "hello"
    with pytest.raises(ValueError, match=r"text: byte 0xa9 has no token in the vocabulary of model.gguf"):
        tok.encode("hello\u00e9")


def test_duplicates_of_what_text_cannot_reach() -> None:
    tok = build([*PIECES, ("<|eot_id|>", CONTROL), ("<|eot_id|>", CONTROL)])
    assert tok.encode("<|eot_id|>", special=True) == [ID["<|eot_id|>"]]


def test_chat_template() -> None:
    assert SYNTHETIC.chat_template is None
    metadata = {f"tokenizer.ggml.{k}": v for k, v in KEYS.items()} | {"tokenizer.chat_template": "{{ x }}"}
    assert Tokenizer.from_gguf(metadata, "model.gguf").chat_template == "{{ x }}"
    with pytest.raises(ModelLoadError, match=r"model.gguf: tokenizer.chat_template: expected a str, found 5"):
        Tokenizer.from_gguf(metadata | {"tokenizer.chat_template": 5}, "model.gguf")


# One text, and where the patterns of each name cut it.
TEXT = "HelloWorld don't DON'T 12345 a\u0301b x.y == 漢字 \n\n z"
CUTS = {
    "gpt-2": "HelloWorld| don|'t| DON|'|T| 12345| a|\u0301|b| x|.|y| ==| 漢字| \n\n| z",
    "smollm": "HelloWorld| don|'t| DON|'|T| |1|2|3|4|5| a|\u0301|b| x|.|y| ==| 漢字| \n\n| z",
    "llama-bpe": "HelloWorld| don|'t| DON|'T| |123|45| a|\u0301b| x|.y| ==| 漢字| \n\n| z",
    "qwen2": "HelloWorld| don|'t| DON|'T| |1|2|3|4|5| a|\u0301b| x|.y| ==| 漢字| \n\n| z",
    "qwen35": "HelloWorld| don|'t| DON|'T| |1|2|3|4|5| a\u0301b| x|.y| ==| 漢字| \n\n| z",
    "tekken": "Hello|World| don|'t| DON|'T| |1|2|3|4|5| a\u0301b| x|.y| ==| 漢字| \n\n| z",
    "gpt-4o": "Hello|World| don't| DON'T| |123|45| a\u0301b| x|.y| ==| 漢字| \n\n| z",
    "deepseek-llm": "HelloWorld| don|'|t| DON|'|T| |1|2|3|4|5| a|\u0301|b| x|.|y| ==| |漢字| |\n|\n| z",
    "deepseek-coder": "HelloWorld| don|'|t| DON|'|T| |1|2|3|4|5| a|\u0301|b| x|.|y| ==| |漢字| |\n|\n| z",
    "deepseek-v3": "HelloWorld| don|'t| DON|'T| |123|45| a\u0301b| x|.y| ==| |漢字| \n\n| z",
    "default": "HelloWorld| don|'|t| DON|'|T| |123|45| a|\u0301|b| x|.|y| |==| 漢字| \n\n| z",
}


@pytest.mark.parametrize("name", CUTS)
def test_where_the_pretokenizers_cut(name: str) -> None:
    """A vocabulary of TEXT's letters where each pair merges: a word is one token."""
    words = CUTS[name].split("|")
    assert "".join(words) == TEXT
    pieces, merges = dict.fromkeys(LETTERS), []
    for word in [*words, TEXT]:
        letters = "".join(LETTERS[b] for b in word.encode())
        for n in range(2, len(letters) + 1):
            if letters[:n] not in pieces:
                pieces[letters[:n]] = None
                merges.append(f"{letters[: n - 1]} {letters[n - 1]}")
    tok = build([(piece, NORMAL) for piece in pieces], pre=name, merges=merges, bos_token_id=None)
    assert [tok.decode([i]) for i in tok.encode(TEXT)] == words


@pytest.mark.parametrize("name", PRETOKENIZERS)
def test_every_pretokenizer_loads_and_keeps_the_text(name: str) -> None:
    tok, text = build(pre=name, merges=MERGES), TEXT + " 's'S \u0130 \u3002!?\t\r\n\x85\u2028 \u09e7 "
    assert tok.decode(tok.encode(text)) == text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pre": None}, "pre: expected a str, found no such key"),
        ({"merges": None}, "merges: expected an array of one or more"),
        ({"merges": [*MERGES, 5]}, "merges: expected str .* item 10"),
        ({"merges": [*MERGES, "h\ud800 e"]}, "merges: .* without surrogates"),
        ({"merges": [*MERGES, "h q"]}, r"merges\[10\]: expected two pieces that make a third, found 'hq'"),
        ({"merges": [*MERGES, "nothing h"]}, r"merges\[10\]: .*found 'nothing'"),
        ({"merges": [*MERGES, "hello"]}, r"merges\[10\]: .*found 'hello'"),
        ({"merges": [*MERGES, ""]}, r"merges\[10\]: .*found ''"),
        ({"merges": [*MERGES, "h e"]}, "merges: expected unique merges, found 'h e' twice"),
        ({"pieces": with_piece(5, "hello")}, r"tokens\[259\]: expected no second .* of piece 5"),
        ({"pieces": [*PIECES, ("hello", CONTROL)]}, r"tokens\[\d+\]: .*no second .* of piece 259"),
        ({"pieces": with_piece(5, 5)}, "tokens: expected str .* item 5: .*int found"),
        ({"token_type": [NORMAL]}, f"token_type: expected an array of {len(PIECES)} elements"),
        ({"bos_token_id": len(PIECES)}, "bos_token_id: expected a token id"),
        ({"add_bos_token": True, "bos_token_id": None}, "bos_token_id: .*as add_bos_token is true"),
    ],
)  # fmt: skip
def test_broken_metadata_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelLoadError, match=f"^model.gguf: tokenizer.ggml.{said}"):
        build(**changes)


def test_an_unknown_pretokenizer_is_named() -> None:
    with pytest.raises(UnsupportedModelError, match=r"tokenizer.ggml.pre: .*qwen2.* found 'kimi-k2'"):
        build(pre="kimi-k2")


def test_a_panic_of_the_library_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its regular expressions give up after ten million steps."""
    monkeypatch.setattr(SYNTHETIC, "_plain", Panics())
    with pytest.raises(PyllamaError, match=r"^model.gguf: no ids for a text of 5 characters: 'too much'"):
        SYNTHETIC.encode("hello")
    monkeypatch.setattr(SYNTHETIC, "_plain", Panics(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        SYNTHETIC.encode("hello")


class PanicException(BaseException):
    """As pyo3 makes it."""


class Panics:
    def __init__(self, error: type[BaseException] = PanicException) -> None:
        self.error = error

    def encode(self, *_: object, **__: object) -> None:
        raise self.error("too much")


def test_byte_and_unknown_types_are_harmless() -> None:
    tok = build([*PIECES, ("<0x0A>", BYTE), ("<unk>", UNKNOWN)], unknown_token_id=len(PIECES) + 1)
    assert tok.decode(tok.encode("<unk><0x0A>")) == "<unk><0x0A>"
    assert tok.encode("<unk>", special=True) == [len(PIECES) + 1]


def test_a_byte_level_model_generates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its text is that of its tokens, as a whole and streamed."""
    kinds = {"model": "str", "pre": "str", "tokens": "[str]", "token_type": "[i32]", "merges": "[str]"}
    keys = [(f"tokenizer.ggml.{k}", kind, KEYS[k]) for k, kind in kinds.items()]
    monkeypatch.setattr(ggufmodel, "vocabulary", lambda n: keys)
    path = ggufmodel.write_model(tmp_path / "m.gguf", ggufmodel.Shape(vocab_size=len(PIECES)))
    with LLM(path) as llm:
        out = llm.generate(["hello \u00e9"], SamplingParams(max_tokens=24, seed=3, ignore_eos=True))[0]
        assert out.prompt_token_ids == SYNTHETIC.encode("hello \u00e9")
        ids = out.outputs[0].token_ids
        assert len(ids) == 24 and out.outputs[0].text == SYNTHETIC.decode(ids)
