"""Ids of real vocabularies: as published, as Hugging Face's library has them, and back to text."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from hftokenizer import LLAMA3, QWEN2, added, byte_level, sentencepiece, template
from hypothesis import given
from hypothesis import strategies as st
from published import SHARED, needs_shared

from pyllama.tokenizer import Tokenizer
from pyllama.weights.gguf import GGUFFile

pytestmark = needs_shared
VOCABULARIES = ("llama-spm", "phi-3", "llama-bpe", "qwen2")
PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="\u2581"))
MIXED = (
    "Hello \U0001f999\u200d\U0001f9ae \u6f22\u5b57\u4eee\u540d na\u00efve\n\n\t 1234567 "
    "\u0645\u0631\u062d\u0628\u0627 \ud55c\uad6d\uc5b4"
)


@functools.cache
def reference(name: str) -> Tokenizer:
    return Tokenizer.from_file(SHARED / name)


def vocabulary(name: str) -> Tokenizer:
    return reference(f"vocab/ggml-vocab-{name}.gguf")


@functools.cache
def texts(name: str) -> list[str]:
    path = SHARED / "vocab" / f"ggml-vocab-{name}.gguf.inp"
    return path.read_bytes().decode().split("\n__ggml_vocab_test__\n")


@functools.cache
def wikitext() -> str:
    return (SHARED / "text/wikitext-2-test.txt").read_text(encoding="utf-8")


def streamed(tok: Tokenizer, ids: list[int], prompt: list[int] | tuple[int, ...] = ()) -> str:
    stream = tok.stream(prompt)
    return "".join([*map(stream.put, ids), stream.flush()])


def inverts(tok: Tokenizer, text: str) -> None:
    ids = tok.encode(text)
    assert tok.decode(ids) == text
    assert streamed(tok, ids) == text


@pytest.mark.parametrize("name", VOCABULARIES)
def test_published_ids(name: str) -> None:
    tok = vocabulary(name)
    lines = (SHARED / "vocab" / f"ggml-vocab-{name}.gguf.out").read_text().split("\n")
    assert len(texts(name)) == len(lines) == 47  # the last of both is what follows the last separator
    for text, line in zip(texts(name), lines, strict=True):
        assert tok.encode(text, add_bos=False) == [int(i) for i in line.split()], text
        inverts(tok, text)


def test_llama_2_published_ids() -> None:
    tok = reference("llama2-tokenizer/tokenizer.model")
    assert (tok.bos_id, tok.eos_id, tok.vocab_size) == (1, 2, 32000)
    ids = tok.encode('"this is a python code:"')
    assert ids == [1, 376, 1366, 338, 263, 3017, 775, 6160]


@given(PLAIN)
def test_gguf_and_tokenizer_model_agree(text: str) -> None:
    model = reference("stories260k/hf/tokenizer.model")
    assert reference("stories260k/stories260k-f32.gguf").encode(text) == model.encode(text)
    inverts(model, text)
    inverts(reference("llama2-tokenizer/tokenizer.model"), text)


def test_a_folder_without_tokenizer_json() -> None:
    tok = reference("stories260k/hf")
    assert tok.encode("Once upon") == reference("stories260k/stories260k-f32.gguf").encode("Once upon")
    assert (tok.vocab_size, tok.bos_token, tok.eos_token, tok.stop_ids) == (512, "<s>", "</s>", {2})


@pytest.mark.parametrize("name", VOCABULARIES)
def test_wikitext_survives(name: str) -> None:
    tok = vocabulary(name)
    for paragraph in wikitext().splitlines(True):
        assert tok.decode(tok.encode(paragraph)) == paragraph
    assert tok.decode(tok.encode(wikitext())) == wikitext()


@pytest.mark.parametrize("name", VOCABULARIES)
def test_stream_equals_decode(name: str) -> None:
    """Also where tokens cut characters, and where bytes are no UTF-8."""
    tok, rng = vocabulary(name), random.Random(name)
    mixed = tok.encode(MIXED, add_bos=False)
    assert any(not tok.decode([i]).isprintable() or "\ufffd" in tok.decode([i]) for i in mixed)
    assert streamed(tok, mixed) == tok.decode(mixed) == MIXED
    for _ in range(500):
        ids = rng.choices(mixed, k=6) + rng.choices(range(tok.vocab_size), k=10)
        rng.shuffle(ids)
        assert streamed(tok, ids) == tok.decode(ids)


@pytest.mark.parametrize(
    ("name", "stops", "begins"),
    [
        ("llama-spm", ["</s>"], "<s>"),
        ("phi-3", ["</s>", "<|end|>", "<|endoftext|>"], "<s>"),
        ("llama-bpe", ["<|end_of_text|>", "<|eot_id|>"], "<|begin_of_text|>"),
        ("qwen2", ["<|endoftext|>", "<|im_end|>"], None),
    ],
)
def test_special_tokens(name: str, stops: list[str], begins: str | None) -> None:
    tok = vocabulary(name)
    assert {tok.piece(i) for i in tok.stop_ids} == set(stops)
    assert tok.add_bos is (begins is not None)
    for stop in stops:
        assert tok.encode(stop, add_bos=False, special=True)[0] in tok.stop_ids
        assert not tok.stop_ids & set(tok.encode(f"a {stop}b"))
        inverts(tok, f"a {stop}b")
    if begins is not None:
        once = tok.encode("a")
        assert tok.piece(once[0]) == begins == tok.bos_token
        assert tok.encode(f"{begins}a", special=True) == once
        assert tok.encode(begins + "a", special=True, add_bos=False) == once


def test_phi_3_strips_what_follows_a_special_token() -> None:
    tok = vocabulary("phi-3")
    ids = tok.encode("<|user|>\n\nhello<|end|> \n<|assistant|>\n", special=True)
    assert [tok.piece(i) for i in ids] == ["<s>", "<|user|>", "\u2581hello", "<|end|>", "<|assistant|>"]
    assert tok.chat_template is not None and tok.chat_template.startswith("{{ bos_token }}")
    assert vocabulary("llama-bpe").chat_template is None


def keys(name: str) -> dict[str, list]:
    with GGUFFile(str(SHARED / f"vocab/ggml-vocab-{name}.gguf")) as file:
        found = {
            k: file.metadata.get(f"tokenizer.ggml.{k}") for k in ("tokens", "merges", "scores", "token_type")
        }
    return {k: v.tolist() if hasattr(v, "tolist") else v for k, v in found.items()}


def as_llama_3() -> tokenizers.Tokenizer:
    k = keys("llama-bpe")
    merges = [tuple(m.split(" ")) for m in k["merges"]]
    library = byte_level(k["tokens"][:128000], merges, LLAMA3, ignore_merges=True)
    library.add_special_tokens([added(piece) for piece in k["tokens"][128000:]])
    template(library, "<|begin_of_text|>")
    return library


def as_qwen_2() -> tokenizers.Tokenizer:
    k = keys("qwen2")
    merges = [tuple(m.split(" ")) for m in k["merges"]]
    library = byte_level(k["tokens"][:151643], merges, QWEN2)
    library.normalizer = tokenizers.normalizers.NFC()
    library.add_special_tokens([added(piece) for piece in k["tokens"][151643:151646]])
    return library


def as_llama_2(layout: str, scheme: str) -> tokenizers.Tokenizer:
    k = keys("llama-spm")
    library = sentencepiece(k["tokens"], k["scores"], layout, scheme)
    library.add_special_tokens([added(piece) for piece in k["tokens"][:3]])
    template(library, "<s>")
    return library


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("llama-bpe", as_llama_3),
        ("qwen2", as_qwen_2),
        ("llama-spm", lambda: as_llama_2("prepend", "always")),
        ("llama-spm", lambda: as_llama_2("metaspace", "always")),
        ("llama-spm", lambda: as_llama_2("metaspace", "first")),
    ],
)
def test_tokenizer_json_agrees(name: str, build: Callable[[], tokenizers.Tokenizer], tmp_path: Path) -> None:
    """With the GGUF file of the same model, and with the library that defines the format."""
    gguf, library = vocabulary(name), build()
    library.save(str(tmp_path / "tokenizer.json"))
    tok = Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert tok.add_bos == gguf.add_bos and tok.stop_ids == gguf.stop_ids
    special = "".join(gguf.piece(i) for i in gguf.stop_ids)
    for text in [*texts(name), MIXED, wikitext()[:20000], f"a{special}", f"{special}a b{special}c"]:
        assert tok.encode(text, special=True) == library.encode(text).ids, text
        if library.pre_tokenizer is not None and "Metaspace" in str(library.pre_tokenizer):
            if text.startswith(" "):
                continue  # it then adds no space, unlike SentencePiece
        else:
            assert tok.encode(text, special=True) == gguf.encode(text, special=True), text
        assert tok.encode(text) == gguf.encode(text), text
        assert tok.decode(tok.encode(text)) == text


def test_metaspace_first_prefixes_the_first_part_alone(tmp_path: Path) -> None:
    as_llama_2("metaspace", "first").save(str(tmp_path / "tokenizer.json"))
    tok = Tokenizer.from_file(tmp_path)
    parts = [tok.piece(i) for i in tok.encode("hello</s>hello", special=True)]
    assert parts == ["<s>", "\u2581hello", "</s>", "hello"]
