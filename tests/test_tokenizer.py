"""pyllama.tokenizer: ids against published ones, against sentencepiece itself, and every error."""

from __future__ import annotations

import functools
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from pyllama.errors import ModelLoadError, UnsupportedModelError
from pyllama.tokenizer import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)

PIECES = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)]
PIECES += [(f"<0x{i:02X}>", BYTE) for i in range(256)]
MERGES = ["\u2581", *"helowrd<s>/", "he", "ll", "hell", "hello", "\u2581hello", "or", "\u2581w"]
PIECES += [(piece, NORMAL) for piece in MERGES]
EXTRA = {"<tag>": USER, "<end>": CONTROL, "<end>l": CONTROL, "<pad>": UNUSED}
PIECES += list(EXTRA.items())
ID = {piece: i for i, (piece, _) in reversed(list(enumerate(PIECES)))}
KEYS = {
    "model": "llama",
    "tokens": [piece for piece, _ in PIECES],
    "scores": [-float(i) for i in range(len(PIECES))],
    "token_type": [kind for _, kind in PIECES],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "unknown_token_id": 0,
    "eot_token_id": ID["<end>"],
}
TEXTS = ["", " ", "  ", "hello world", " hello", "a\u00e9\n\t\0", "\U0001f999 \u6f22", "</s><tag>x"]
# SentencePiece spells a space as U+2581: a literal one comes back as a space.
PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="\u2581"))
PARTS = [*EXTRA, *(piece.replace("\u2581", " ") for piece in MERGES), "</s>", "<0x0A>", "\0"]
TRICKY = st.lists(st.sampled_from(PARTS)).map("".join)


def build(pieces: list[tuple[str, int]] | None = None, **changes: Any) -> Tokenizer:
    """The synthetic tokenizer with other pieces or keys; None removes a key."""
    keys: dict[str, Any] = dict(KEYS)
    if pieces is not None:
        keys["tokens"], keys["token_type"] = map(list, zip(*pieces, strict=True))
        keys["scores"] = [-float(i) for i in range(len(pieces))]
    metadata = {f"tokenizer.ggml.{k}": v for k, v in (keys | changes).items() if v is not None}
    return Tokenizer.from_gguf(metadata, "model.gguf")


def with_piece(i: int, piece: Any, kind: int | None = None) -> list[tuple[Any, int]]:
    return [*PIECES[:i], (piece, kind or PIECES[i][1]), *PIECES[i + 1 :]]


def streamed(tok: Tokenizer, ids: list[int], prompt: list[int] | tuple[int, ...] = ()) -> str:
    stream = tok.stream(prompt)
    return "".join([*map(stream.put, ids), stream.flush()])


def inverts(tok: Tokenizer, text: str) -> None:
    ids = tok.encode(text)
    assert tok.decode(ids) == text
    assert streamed(tok, ids) == text


@functools.cache
def synthetic(space_prefix: bool = True) -> Tokenizer:
    return build(add_space_prefix=space_prefix)


@functools.cache
def trained() -> bytes:
    """A real SentencePiece model with user-defined and control symbols, trained on the spot."""
    line = "the quick brown fox jumps over the lazy dog and says hello to the world again "
    text = (line[i % 60 :] + line[: i % 41] for i in range(200))
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=text, model_writer=model, model_type="bpe", vocab_size=340,
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        user_defined_symbols=["<tag>", "<ta", "\u2581\u2581", "\u2581\u2581\u2581", "ello"],
        control_symbols=["<end>"], minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


@functools.cache
def trained_pair(folder: Path) -> tuple[Tokenizer, SentencePieceProcessor]:
    """Our tokenizer and sentencepiece's own of the trained model."""
    (folder / "tokenizer.model").write_bytes(trained())
    processor = SentencePieceProcessor()
    processor.LoadFromSerializedProto(trained())
    return Tokenizer.from_file(folder / "tokenizer.model"), processor


def test_merges_by_score_after_bos_and_properties() -> None:
    tok, pieces = synthetic(), ["<s>", "\u2581hello", "\u2581w", "or", "l", "d"]
    assert tok.encode("hello world") == [ID[piece] for piece in pieces]
    assert (tok.vocab_size, tok.bos_id, tok.eos_id) == (len(PIECES), 1, 2)
    assert (tok.add_bos, tok.stop_ids) == (True, {2, ID["<end>"]})
    assert [tok.piece(i) for i in range(tok.vocab_size)] == KEYS["tokens"]
    for bad in (-1, len(PIECES)):
        with pytest.raises(ValueError, match=f"expected 0 <= id < {len(PIECES)} .*found {bad}"):
            tok.piece(bad)


@given(st.booleans(), st.sampled_from(TEXTS) | PLAIN | TRICKY)
def test_decode_inverts_encode(space_prefix: bool, text: str) -> None:
    inverts(synthetic(space_prefix), text)


@given(TRICKY)
def test_special_spellings_in_text_are_text(text: str) -> None:
    hidden = {i for i, (_, kind) in enumerate(PIECES) if kind in (UNKNOWN, CONTROL, UNUSED)}
    assert not hidden & set(synthetic().encode(text, add_bos=False))


def test_special_parses_the_longest_spelling_and_prefixes_each_part() -> None:
    tok, hello, end, longer = synthetic(), ID["\u2581hello"], ID["<end>"], ID["<end>l"]
    assert tok.encode("hello</s>hello<end>l", special=True) == [1, hello, 2, hello, longer]
    assert tok.encode("<unk><end><tag>hello", special=True) == [1, 0, end, ID["<tag>"], hello]
    assert tok.encode("<end", special=True) == tok.encode("<end")


def test_user_defined_is_one_token_inside_a_text() -> None:
    ids = synthetic().encode("hello<tag>hello", add_bos=False)
    assert ids == [ID["\u2581hello"], ID["<tag>"], ID["hello"]]


def test_user_defined_pieces_may_nest_deeply() -> None:
    more = [("a" * n, USER) for n in range(1, 200)]  # sentencepiece 0.2.0 itself crashes on these
    ids = build([*PIECES, *more], add_space_prefix=False).encode("a" * 1000, add_bos=False)
    assert ids == [len(PIECES) + 198] * 5 + [len(PIECES) + 4]


def test_user_defined_spelled_with_spaces_beats_the_normal_piece() -> None:
    tok = build([*PIECES, ("\u2581\u2581", NORMAL), ("  ", USER)])
    n = len(PIECES)
    assert tok.encode("   hello", add_bos=False) == [n + 1, n + 1, ID["hello"]]
    inverts(tok, "he   hello  ")


def test_bos_is_added_once_and_eos_only_if_the_model_says_so() -> None:
    tok = build(add_eos_token=True)
    assert tok.encode("<s>", special=True) == [1, 2]
    assert tok.encode("<s>", special=True, add_bos=False) == [1]
    assert tok.encode("") == [1, 2]
    assert synthetic().encode("") == [1]
    assert build(add_bos_token=False).encode("") == []


@pytest.mark.parametrize("kind", [NORMAL, USER, UNUSED])
def test_tokens_that_the_file_names_are_special_whatever_their_type(kind: int) -> None:
    tok = build(with_piece(2, "</s>", kind))
    assert 2 not in tok.encode("</s>") and tok.decode([2]) == ""
    assert tok.encode("</s>", special=True) == [1, 2]


def test_ids_default_to_llamas() -> None:
    tok = build(bos_token_id=None, eos_token_id=None, unknown_token_id=None, eot_token_id=None)
    assert (tok.bos_id, tok.eos_id, tok.stop_ids) == (1, 2, {2})
    tok = build(with_piece(1, "x", NORMAL), bos_token_id=None)
    assert (tok.bos_id, tok.add_bos, tok.encode("")) == (None, False, [])


def test_remove_extra_whitespaces() -> None:
    tok = build(remove_extra_whitespaces=True)
    assert tok.encode("  hello   hello ") == [1, ID["\u2581hello"], ID["\u2581hello"]]
    assert tok.encode("  ") == [1]


def test_without_byte_pieces_the_unknown_token_stands_in() -> None:
    tok = build([p for p in PIECES if p[1] != BYTE], eot_token_id=None)
    ids = tok.encode("hello\u00e9")
    assert ids[0] == 1 and ids[-1] == 0 and tok.decode(ids) == "hello"


def test_decode_special_and_broken_bytes() -> None:
    tok, ids = synthetic(), synthetic().encode("hello</s>", special=True)
    assert tok.decode(ids) == "hello"
    assert tok.decode(ids, skip_special=False) == "<s>hello</s>"
    assert tok.decode(np.array([ID["<0xF0>"], ID["<0x9F>"], ID["h"]])) == "\ufffdh"
    for bad in (-1, len(PIECES)):
        with pytest.raises(ValueError, match=f"< {len(PIECES)} .*found {bad}"):
            tok.decode([1, bad])


def test_encode_refuses_what_is_no_text() -> None:
    with pytest.raises(ValueError, match=r"lone surrogate '\\ud800' at position 2"):
        synthetic().encode("ab\ud800")
    with pytest.raises(TypeError, match="expected str, found bytes"):
        synthetic().encode(b"ab")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="ids: expected token ids, found 'a'"):
        synthetic().decode("a")  # type: ignore[arg-type]


def test_stream_holds_back_unfinished_characters() -> None:
    stream = synthetic().stream()
    got = [stream.put(i) for i in synthetic().encode("he\U0001f999\u6f22")]
    assert [text for text in got if text] == ["he", "\U0001f999", "\u6f22"]
    assert stream.flush() == ""
    stream.put(ID["<0xF0>"])
    assert stream.flush() == "\ufffd" and stream.flush() == ""
    with pytest.raises(ValueError, match="found -1"):
        stream.put(-1)


@given(st.lists(st.integers(0, len(PIECES) - 1)))
def test_stream_equals_decode_for_any_ids(ids: list[int]) -> None:
    assert streamed(synthetic(), ids) == synthetic().decode(ids)


def test_stream_that_continues_a_prompt_keeps_its_first_space() -> None:
    tok, hello = synthetic(), ID["\u2581hello"]
    assert streamed(tok, [hello, hello], [1]) == "hello hello"
    assert streamed(tok, [hello], tok.encode("he")) == " hello"
    assert streamed(synthetic(False), [hello]) == " hello"
    with pytest.raises(ValueError, match="found -1"):
        tok.stream([-1])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": None}, "model: expected a str, found no such key"),
        ({"tokens": []}, "tokens: expected an array of one or more"),
        ({"scores": KEYS["scores"][1:]}, f"scores: expected an array of {len(PIECES)} elements"),
        ({"token_type": np.ones(3, np.int32)}, "token_type: .*found an array of 3 int32"),
        ({"token_type": [0] * len(PIECES)}, r"token_type\[0\]: expected 1 to 6, found 0"),
        ({"token_type": [1.0] * len(PIECES)}, r"token_type\[0\]: .*found 1.0"),
        ({"scores": [float("nan")] * len(PIECES)}, r"scores\[0\]: .*found nan"),
        ({"scores": [1e300] * len(PIECES)}, r"scores\[0\]: .*found 1e\+300"),
        ({"bos_token_id": len(PIECES)}, f"bos_token_id: .*< {len(PIECES)}, found {len(PIECES)}"),
        ({"eos_token_id": -1}, "eos_token_id: .*found -1"),
        ({"eot_token_id": 1.5}, "eot_token_id: .*found 1.5"),
        ({"padding_token_id": 1 << 31}, "padding_token_id: "),
        ({"add_bos_token": 1}, "add_bos_token: expected a bool, found 1"),
        ({"pieces": with_piece(270, 5)}, "tokens: expected str .* item 270: .*int found"),
        ({"pieces": with_piece(270, "\ud800")}, "tokens: .* without surrogates, found .*d800"),
        ({"pieces": with_piece(261, "")}, r"tokens\[261\]: .*not empty"),
        ({"pieces": with_piece(261, "a\0")}, r"tokens\[261\]: .*no NUL"),
        ({"pieces": with_piece(261, "h")}, r"tokens\[261\]: expected no second .* of piece 260"),
        ({"pieces": with_piece(261, "<0x00>")}, r"tokens\[261\]: .* of piece 3"),
        ({"pieces": with_piece(3, "<0xZZ>")}, r"tokens\[3\]: .*<0x00> to <0xFF>, found '<0xZZ>'"),
        ({"pieces": with_piece(3, "<0xff>")}, r"tokens\[258\]: expected no second .* of piece 3"),
        ({"pieces": with_piece(3, "x", NORMAL)}, "tokens: expected 256 byte pieces .* found 255"),
        ({"pieces": [("a", NORMAL)], "bos_token_id": None, "eos_token_id": None,
          "eot_token_id": None, "unknown_token_id": None}, "tokens: .* token, found neither"),
        ({"pieces": with_piece(1, "x", NORMAL), "bos_token_id": None, "add_bos_token": True},
         "bos_token_id: .*as add_bos_token is true, found no such key"),
    ],
)  # fmt: skip
def test_broken_metadata_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelLoadError, match=f"^model.gguf: tokenizer.ggml.{said}"):
        build(**changes)


def test_a_refusal_by_sentencepiece_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no such piece")

    monkeypatch.setattr(SentencePieceProcessor, "LoadFromSerializedProto", refuse)
    with pytest.raises(ModelLoadError, match=r"tokens: .*sentencepiece, found 'no such"):
        build()


def test_what_text_cannot_reach_may_be_empty_or_twice() -> None:
    more = [("", UNUSED), ("x\0", CONTROL), ("", CONTROL), ("hello", UNUSED), ("</s>", CONTROL)]
    more += [(f"[PAD{i}]", UNKNOWN) for i in range(53)] + [("w", CONTROL), ("x", CONTROL)]
    tok = build([*PIECES, *more])
    for text in TEXTS:
        assert tok.encode(text) == synthetic().encode(text)
        inverts(tok, text)
    assert tok.encode("</s>", special=True) == [1, 2]
    assert tok.decode([len(PIECES) + 3]) == "hello"


def test_numpy_arrays_and_a_large_padded_vocabulary() -> None:
    pieces = [*PIECES, *((f"<unused_{i}>", UNUSED) for i in range(128256))]
    types = np.array([kind for _, kind in pieces], np.int32)
    tok = build(pieces, token_type=types, scores=np.arange(len(pieces), dtype=np.float32)[::-1])
    assert tok.vocab_size == len(pieces)
    inverts(tok, "hello <unused_7>")
    assert tok.decode([len(PIECES) + 7]) == "<unused_7>"


def test_from_file_tells_by_content(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    writer = gguf.GGUFWriter(path, "llama")
    add = {list: writer.add_array, str: writer.add_string, int: writer.add_uint32}
    for key, value in KEYS.items():
        add[type(value)](f"tokenizer.ggml.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert Tokenizer.from_file(path).encode("hello") == synthetic().encode("hello")


@pytest.mark.parametrize("data", [b"", b"\n", b"\x0a\x02", b"\x0b", b"\x80" * 20, b"\x08\x01"])
def test_a_broken_tokenizer_model_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(data)
    with pytest.raises(ModelLoadError, match=r"tokenizer.model: file: expected a sentencepiece"):
        Tokenizer.from_file(path)


def test_what_is_not_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"^model.gguf: tokenizer.ggml.model: .*found 'bert'"):
        build(model="bert")
    with pytest.raises(ModelLoadError, match=r": folder: expected tokenizer.json or .*found neither"):
        Tokenizer.from_file(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelLoadError, match="expected a regular file, found prw"):
        Tokenizer.from_file(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        Tokenizer.from_file(tmp_path / "absent")
    # a second trainer_spec is merged into the first: model_type UNIGRAM
    (tmp_path / "tokenizer.model").write_bytes(trained() + b"\x12\x02\x18\x01")
    with pytest.raises(UnsupportedModelError, match=r"trainer_spec.model_type: .* 2, found 1"):
        Tokenizer.from_file(tmp_path / "tokenizer.model")


@given(TRICKY | PLAIN | st.text("the quickfoxz<tag>\u2581 "))
def test_ids_are_sentencepieces_own(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    ours, theirs = trained_pair(tmp_path_factory.getbasetemp())
    assert ours.encode(text, add_bos=False) == theirs.encode(text)
    assert ours.decode(ours.encode(text)) == text.replace("\u2581", " ")


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_damaged_tokenizer_model_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    model = bytearray(trained())
    for _ in range(data.draw(st.integers(0, 4))):
        model[data.draw(st.integers(0, len(model) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del model[data.draw(st.integers(0, len(model))) :]
    path = tmp_path_factory.getbasetemp() / "damaged.model"
    path.write_bytes(model)
    try:
        tok = Tokenizer.from_file(path)
    except ModelLoadError as e:
        assert "damaged.model: " in str(e)
    else:
        streamed(tok, tok.encode("the <tag>  quick\u00e9", special=True))


def test_import_is_light() -> None:
    heavy = {"numpy", "sentencepiece", "tokenizers"}
    code = f"import sys, pyllama.tokenizer, pyllama.bpe; print({heavy} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
