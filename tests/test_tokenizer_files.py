"""tokenizer.json, tokenizer.model and Hugging Face folders: what they say, and every error."""

from __future__ import annotations

import functools
import itertools
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hftokenizer import FLAGS, LLAMA3, added, byte_level, sentencepiece, template
from test_tokenizer import trained

from pyllama.bpe import LETTERS
from pyllama.errors import ModelLoadError, UnsupportedModelError
from pyllama.tokenizer import Tokenizer
from pyllama.weights import json_file

SPM = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "\u2581", *"helowrd<s>/"]
SPM += ["he", "ll", "hell", "hello", "\u2581hello", "or", "\u2581w", "</", "s>", "<s>x", "\u2581\u2581"]
SPM = list(dict.fromkeys(SPM))
MERGES = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("\u0120", "w"), ("o", "r")]
BYTES = [*LETTERS, *(a + b for a, b in MERGES)]
PARTS = [
    "<s>",
    "</s>",
    " ",
    "  ",
    "hello",
    "he",
    "\n",
    "x",
    "\u00e9",
    "\u6f22",
    "<tag>",
    "<TAG>",
    "_",
    "\u2581",
]


def llama_2(layout: str = "prepend", scheme: str = "always") -> tokenizers.Tokenizer:
    library = sentencepiece(SPM, [-float(i) for i in range(len(SPM))], layout, scheme)
    library.add_special_tokens([added(piece) for piece in SPM[:3]])
    return library


def llama_3() -> tokenizers.Tokenizer:
    library = byte_level(BYTES, MERGES, LLAMA3, ignore_merges=True)
    library.add_special_tokens([added("<s>"), added("</s>"), added("<|eot_id|>")])
    template(library, "<s>")
    return library


@functools.cache
def as_json(build: Callable[[], tokenizers.Tokenizer] = llama_3) -> str:
    return build().to_str()


def folder(path: Path, tokenizer: Any = None, model: bytes | None = None, **files: Any) -> Path:
    """A folder of a tokenizer, by default llama_3's, and of JSON files by their names."""
    path.mkdir(exist_ok=True)
    if model is not None:
        (path / "tokenizer.model").write_bytes(model)
    else:
        text = tokenizer if isinstance(tokenizer, str) else json.dumps(tokenizer) if tokenizer else as_json()
        (path / "tokenizer.json").write_text(text)
    for name, values in files.items():
        (path / f"{name}.json").write_text(values if isinstance(values, str) else json.dumps(values))
    return path


def load(path: Path, *args: Any, **files: Any) -> Tokenizer:
    return Tokenizer.from_file(folder(path, *args, **files))


def spelled(tok: Tokenizer, text: str, **options: bool) -> list[str]:
    return [tok.piece(i) for i in tok.encode(text, **options)]


# ---- tokenizer.json ----


@pytest.mark.parametrize("flags", list(itertools.product([False, True], repeat=4)))
@pytest.mark.parametrize(
    "build",
    [
        llama_3,
        llama_2,
        lambda: llama_2("prepend", "never"),
        lambda: llama_2("metaspace"),
        lambda: llama_2("metaspace", "first"),
        lambda: llama_2("metaspace", "never"),
    ],
)
def test_ids_are_the_librarys_own(
    build: Callable[[], tokenizers.Tokenizer], flags: tuple[bool, ...], tmp_path: Path
) -> None:
    """With added tokens of all kinds; and the text that decode and stream make of the ids."""
    library, rng = build(), random.Random(str(flags))
    options = dict(zip(FLAGS, flags, strict=True))
    library.add_tokens([added("<tag>", False, **options), added("<TAG>", True, **options)])
    library.save(str(tmp_path / "tokenizer.json"))
    tok = Tokenizer.from_file(tmp_path / "tokenizer.json")
    hidden = {library.token_to_id(piece) for piece in ("<s>", "</s>", "<TAG>")}
    for _ in range(100):
        text = "".join(rng.choices(PARTS, k=rng.randrange(8)))
        ids, stream = tok.encode(text, add_bos=False, special=True), tok.stream()
        assert ids == library.encode(text, add_special_tokens=False).ids, text
        assert not hidden & set(tok.encode(text, add_bos=False)), text
        said = tok.decode(ids)
        assert said == "".join([*map(stream.put, ids), stream.flush()])
        if not options["normalized"]:  # the library shows special tokens that are normalized
            assert said == library.decode(ids), text


def test_user_defined_tokens_are_found_in_plain_text(tmp_path: Path) -> None:
    library = llama_3()
    library.add_tokens([added("<tag>", False, rstrip=True)])
    tok = load(tmp_path, library.to_str())
    assert spelled(tok, "he<tag> \nhe<s>") == ["<s>", "he", "<tag>", "he", "<", "s", ">"]
    assert spelled(tok, "he<tag> \nhe<s>", special=True) == ["<s>", "he", "<tag>", "he", "<s>"]


def test_the_template_adds_bos_once(tmp_path: Path) -> None:
    tok = load(tmp_path)
    assert (tok.bos_token, tok.eos_token, tok.add_bos) == ("<s>", None, True)
    assert spelled(tok, "he") == spelled(tok, "<s>he", special=True) == ["<s>", "he"]
    assert tok.stop_ids == {tok.encode("</s>", False, True)[0], tok.encode("<|eot_id|>", False, True)[0]}
    library = llama_3()
    library.post_processor = tokenizers.processors.TemplateProcessing(
        "<s> $A </s>", special_tokens=[("<s>", 262), ("</s>", 263)]
    )
    tok = load(tmp_path, library.to_str())
    assert spelled(tok, "he") == ["<s>", "he", "</s>"] and tok.eos_token == "</s>"
    library.post_processor = None
    tok = load(tmp_path, library.to_str())
    assert (tok.bos_token, tok.add_bos, spelled(tok, "he")) == (None, False, ["he"])


def test_merges_as_strings_and_the_oldest_layout(tmp_path: Path) -> None:
    top = json.loads(as_json())
    top["model"]["merges"] = [" ".join(pair) for pair in top["model"]["merges"]]
    top["model"] = {key: top["model"][key] for key in ("vocab", "merges")}
    del top["decoder"]
    assert spelled(load(tmp_path, top), "hello") == ["<s>", "hello"]


def change(*path: str | int, to: Any, build: Callable[[], tokenizers.Tokenizer] = llama_3) -> dict[str, Any]:
    """The tokenizer.json with another value at a place."""
    top = json.loads(as_json(build))
    at = top
    for key in path[:-1]:
        at = at[key]
    if isinstance(at, list) and path[-1] == len(at):
        at.append(to)
    else:
        at[path[-1]] = to
    return top  # type: ignore[no-any-return]


SPLIT = {"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize(
    ("top", "said"),
    [
        ("", r"file: expected JSON of <= 64 levels, found 'Expecting value"),
        ("[]", "file: expected a JSON object, found an array of 0"),
        ('{"a": NaN}', "file: expected JSON .*NaN"),
        ('{"model": 1, "model": 2}', "file: expected JSON .*'model' twice"),
        ('{"model": ' + "[" * 100_000, "file: expected JSON"),
        ('{"model": ' + "[" * 70 + "]" * 70 + "}", "file: expected JSON .*more levels"),
        ('{"version": ' + "1" * 5000 + "}", "file: expected JSON"),
        ("{}", "model: expected an object, found nothing"),
        (change("model", to=[]), "model: expected an object, found an array of 0"),
        (change("model", "vocab", to={}), "model.vocab: expected an object of one or more"),
        (change("model", "vocab", "x", to=1.5), "model.vocab.x: expected a token id .*found 1.5"),
        (change("model", "vocab", "x", to=True), "model.vocab.x: expected a token id .*found True"),
        (change("model", "vocab", "x", to=-1), "model.vocab.x: expected a token id"),
        (change("model", "vocab", "x", to=1 << 60), "model.vocab.x: expected a token id"),
        (change("model", "vocab", "he", to=3), r"model.vocab.he: expected an id that 'ă' does not"),
        (change("model", "vocab", "\ud800", to=300), "model.vocab: expected str without surrogates"),
        (change("model", "merges", to={}), "model.merges: expected an array, found an object"),
        (change("model", "merges", 6, to="h e l"), r"model.merges\[6\]: expected two pieces"),
        (change("model", "merges", 6, to="hello"), r"model.merges\[6\]: expected two pieces .*found 'hello'"),
        (change("model", "merges", 6, to=["h", "x", "y"]), r"model.merges\[6\]: .*found list"),
        (change("model", "merges", 6, to=[["h"], ["e"]]), r"model.merges\[6\]: .*found list"),
        (change("model", "merges", 6, to={"h": 1, "e": 2}), r"model.merges\[6\]: .*found dict"),
        (change("model", "merges", 6, to=["h", "w"]), r"model.merges\[6\]: .*found 'hw'"),
        (change("model", "merges", 6, to=["h", "e"]), "merges: .*unique merges, found 'h e' twice"),
        (change("model", "unk_token", to="<none>"), "model.unk_token: expected a piece of model.vocab"),
        (change("model", "unk_token", to=5), "model.unk_token: expected a string, found 5"),
        (change("model", "ignore_merges", to="yes"), "model.ignore_merges: expected a bool, found 'yes'"),
        (change("added_tokens", to=5), "added_tokens: expected an array, found 5"),
        (change("added_tokens", 0, to=5), r"added_tokens\[0\]: expected an object, found 5"),
        (change("added_tokens", 0, "id", to=None), r"added_tokens\[0\].id: .*token id .*found nothing"),
        (change("added_tokens", 0, "id", to=1 << 40), r"added_tokens\[0\].id: expected a token id"),
        (change("added_tokens", 0, "id", to=3), r"added_tokens\[0\].content: expected 'ă', which"),
        (change("added_tokens", 0, "content", to=""), r"added_tokens\[0\].content: expected a token's text"),
        (change("added_tokens", 0, "content", to="\udc00"), r"added_tokens\[0\].content: expected a token's"),
        (change("added_tokens", 0, "content", to="he"), r"model.vocab\[262\]: expected no second spelling"),
        (change("added_tokens", 0, "rstrip", to=1), r"added_tokens\[0\].rstrip: expected a bool, found 1"),
        (change("normalizer", to={"type": "Nothing"}), "normalizer: expected what the library .* takes"),
        (change("pre_tokenizer", to=[]), "pre_tokenizer: expected an object, found an array of 0"),
        (change("pre_tokenizer", "pretokenizers", 0, to=SPLIT), "pre_tokenizer: expected what the library"),
        (change("pre_tokenizer", "pretokenizers", to={}), "pre_tokenizer.pretokenizers: expected an array"),
        (change("decoder", to=5), "decoder: expected an object, found 5"),
        (change("post_processor", "single", to=5), "post_processor.single: expected an array, found 5"),
        (change("post_processor", "single", 0, to=5), r"post_processor.single\[0\]: expected an object"),
        (change("post_processor", "special_tokens", to={}), "special_tokens.<s>.ids: expected one token id"),
        (change("post_processor", "special_tokens", "<s>", "ids", to=[9999]), "ids: .*< 265, found .*9999"),
    ],
)  # fmt: skip
def test_a_broken_tokenizer_json_is_named(top: Any, said: str, tmp_path: Path) -> None:
    text = top if isinstance(top, str) else json.dumps(top)
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(ModelLoadError, match=f"^{tmp_path}/tokenizer.json: .*{said}"):
        Tokenizer.from_file(tmp_path)


SINGLE = [{"SpecialToken": {"id": "<s>"}}] * 2


@pytest.mark.parametrize(
    ("top", "said"),
    [
        (change("model", "type", to="Unigram"), "model.type: expected 'BPE', found 'Unigram'"),
        (change("model", "dropout", to=0.1), "model.dropout: expected none, found 0.1"),
        (change("model", "end_of_word_suffix", to="</w>"), "model.end_of_word_suffix: expected none"),
        (change("pre_tokenizer", to=None), "decoder: expected steps of .*, found 'ByteLevel'"),
        (change("decoder", "type", to="WordPiece"), "decoder: expected ByteLevel, found 'WordPiece'"),
        (change("decoder", to=None, build=llama_2), "decoder: expected steps of .* found 'none'"),
        (change("decoder", "decoders", 0, "content", to="_", build=llama_2), r"s\[0\].content: .*found '_'"),
        (change("decoder", "decoders", 3, "start", to=2, build=llama_2), r"s\[3\].start: .* 1, found 2"),
        (change("decoder", "decoders", 3, "type", to="CTC", build=llama_2), r"s\[3\].type: .*found 'CTC'"),
        (change("post_processor", "type", to="Bert"), "post_processor.type: expected Template.*found 'Bert'"),
        (change("post_processor", "single", to=SINGLE), "post_processor.single: expected at most one"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_named(top: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=f"^{tmp_path}/tokenizer.json: .*{said}"):
        load(tmp_path, top)


def test_texts_without_pieces_are_an_error_at_load(tmp_path: Path) -> None:
    top = change("model", "byte_fallback", to=False, build=llama_2)
    assert load(tmp_path, top).encode("\u6f22")[-1] == 0  # the unknown token
    top["model"]["unk_token"] = None
    with pytest.raises(ModelLoadError, match=r"model.vocab: expected 256 byte pieces and byte_fallback, or"):
        load(tmp_path, top)


def test_size_and_encoding_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokenizer.json").write_bytes(b'{"model": "\xff"}')
    with pytest.raises(ModelLoadError, match=r"tokenizer.json: file: expected UTF-8, found byte 0xff at 11"):
        Tokenizer.from_file(tmp_path)
    monkeypatch.setattr(json_file, "MAX_BYTES", 10)
    (tmp_path / "tokenizer_config.json").write_text(" " * 11)
    (tmp_path / "tokenizer.json").write_text(as_json())
    with pytest.raises(ModelLoadError, match=r"tokenizer_config.json: file: expected <= 10 bytes, found 11"):
        Tokenizer.from_file(tmp_path)


# ---- folders ----


def test_tokenizer_config_has_the_last_word(tmp_path: Path) -> None:
    config: dict[str, Any] = {"bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "</s>"}
    tok = load(tmp_path, tokenizer_config=config)
    assert (tok.bos_token, tok.eos_token, tok.add_bos) == ("<s>", "</s>", True)
    tok = load(tmp_path, tokenizer_config=config | {"add_bos_token": False, "add_eos_token": True})
    assert spelled(tok, "he") == ["he", "</s>"]
    tok = load(tmp_path, tokenizer_config={"bos_token": None, "eos_token": "<none>"})
    assert (tok.bos_token, tok.eos_id, tok.add_bos) == ("<s>", None, True)  # the template adds it
    tok = load(tmp_path, change("post_processor", to=None), tokenizer_config={"bos_token": None})
    assert (tok.bos_id, tok.add_bos) == (None, False)
    with pytest.raises(ModelLoadError, match=r"tokenizer_config.json: eos_token: .*as add_eos_token is true"):
        load(tmp_path, tokenizer_config={"eos_token": "<none>", "add_eos_token": True})


def test_added_tokens_decoder(tmp_path: Path) -> None:
    entries = {
        "264": {"content": "<|eot_id|>", "special": False},
        "270": {"content": "<tag>", "rstrip": True},
    }
    tok = load(tmp_path, tokenizer_config={"added_tokens_decoder": entries})
    assert (tok.vocab_size, tok.piece(266), tok.decode([266])) == (271, "", "")
    assert spelled(tok, "he<tag> he") == ["<s>", "he", "<tag>", "he"]
    assert 264 in tok.stop_ids and 264 not in tok.encode("<|eot_id|>")


def test_stop_ids_of_all_files(tmp_path: Path) -> None:
    """A stop that is plain text, such as a newline, stays text."""
    files: dict[str, Any] = {
        "generation_config": {"eos_token_id": [36, 263]},
        "config": {"eos_token_id": 198},
    }
    tok = load(tmp_path, tokenizer_config={"eos_token": "</s>"}, **files)
    assert tok.stop_ids == {36, 198, 263, 264}
    assert tok.decode(tok.encode("$")) == "$"
    assert load(tmp_path, config={"eos_token_id": None}).stop_ids >= {263, 264}


def test_ids_without_a_tokenizer_config(tmp_path: Path) -> None:
    library = llama_3()
    library.post_processor = None
    config = {"bos_token_id": 262, "eos_token_id": [263, 264]}
    tok = load(tmp_path, library.to_str(), config=config)
    assert (tok.bos_id, tok.eos_id, tok.add_bos) == (262, 263, False)


def test_rows_without_a_token(tmp_path: Path) -> None:
    tok = load(tmp_path, config={"vocab_size": 300})
    assert (tok.vocab_size, tok.piece(299), tok.decode([299, 72])) == (300, "", "H")
    assert load(tmp_path, config={"vocab_size": 3}).vocab_size == 265


def test_chat_templates(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "b"}, {"name": "default", "template": "c"}]
    for given, expected in ((None, None), ("a", "a"), (named, "c"), (named[:1], None)):
        assert load(tmp_path, tokenizer_config={"chat_template": given}).chat_template == expected
    (tmp_path / "chat_template.jinja").write_text("\u00e9")
    assert Tokenizer.from_file(tmp_path).chat_template == "\u00e9"
    (tmp_path / "chat_template.jinja").write_bytes(b"a\xff")
    with pytest.raises(ModelLoadError, match=r"template.jinja: file: expected UTF-8, found byte 0xff at 1"):
        Tokenizer.from_file(tmp_path)


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("tokenizer_config", "[1]", "file: expected a JSON object, found an array of 1"),
        ("tokenizer_config", {"bos_token": 5}, "bos_token: expected a string, found 5"),
        ("tokenizer_config", {"bos_token": {"content": 5}}, "bos_token.content: expected a string, found 5"),
        ("tokenizer_config", {"add_bos_token": "no"}, "add_bos_token: expected a bool, found 'no'"),
        ("tokenizer_config", {"chat_template": [5]}, r"chat_template\[0\]: expected an object, found 5"),
        ("tokenizer_config", {"added_tokens_decoder": {"x": {}}}, "added_tokens_decoder.x: expected"),
        ("tokenizer_config", {"added_tokens_decoder": {"9999999": {}}}, ".*9999999: expected"),
        ("tokenizer_config", {"added_tokens_decoder": {"3": 5}}, ".*3: expected an object"),
        ("tokenizer_config", {"added_tokens_decoder": {"3": {}}}, ".*3.content: expected"),
        ("tokenizer_config", {"added_tokens_decoder": {"3": {"content": "x"}}}, ".*3.content: .* which"),
        ("generation_config", {"eos_token_id": "x"}, "eos_token_id: expected token ids < 265, found 'x'"),
        ("config", {"eos_token_id": 265}, "eos_token_id: expected token ids < 265, found 265"),
        ("config", {"vocab_size": 1 << 40}, "vocab_size: expected 0 to"),
    ],
)  # fmt: skip
def test_a_broken_neighbour_is_named(name: str, values: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=f"^{tmp_path}/{name}.json: {said}"):
        load(tmp_path, **{name: values})


# ---- tokenizer.model in a folder ----


def test_a_tokenizer_model_with_its_config(tmp_path: Path) -> None:
    alone = Tokenizer.from_file(folder(tmp_path, model=trained()) / "tokenizer.model")
    n, unused = alone.vocab_size, alone.vocab_size - 1
    entries = {
        str(unused): {"content": "<|im_end|>", "special": True, "lstrip": True, "rstrip": True},
        str(n): {"content": "<|word|>", "special": True, "single_word": True},
    }
    tok = load(
        tmp_path, model=trained(), config={"vocab_size": n + 8}, generation_config={"eos_token_id": [n]},
        tokenizer_config={"bos_token": "<s>", "eos_token": "<|im_end|>", "added_tokens_decoder": entries},
    )  # fmt: skip
    assert (tok.vocab_size, tok.eos_id, tok.stop_ids) == (n + 8, unused, {2, unused, n})
    text = "the quick <tag> fox"
    assert tok.encode(text) == alone.encode(text) and tok.decode(tok.encode(text)) == text
    the = alone.encode("the", add_bos=False)
    assert tok.encode("the <|im_end|>\n\tthe", special=True) == [1, *the, unused, *the]
    assert tok.encode("the<|word|> <|word|>", special=True)[-1] == n
    assert n not in tok.encode("the<|word|>the", special=True)
    assert tok.decode([n + 7, *the]) == "the"


def test_legacy_false_prefixes_the_first_part_alone(tmp_path: Path) -> None:
    tok = load(tmp_path, model=trained(), tokenizer_config={"legacy": False})
    old = load(tmp_path, model=trained(), tokenizer_config={"legacy": True})
    assert tok.encode("the</s>the") == old.encode("the</s>the")
    assert old.encode("the</s>the", False, True) == [*old.encode("the", False), 2, *old.encode("the", False)]
    ids = tok.encode("the</s>the", add_bos=False, special=True)
    assert ids[: ids.index(2)] == old.encode("the", False) and ids[-1] != old.encode("the", False)[-1]
    plain = load(tmp_path, model=trained(), tokenizer_config={"add_prefix_space": False})
    assert plain.encode("the", False) == ids[ids.index(2) + 1 :]


def test_tokenizer_json_goes_first_and_a_file_alone_is_alone(tmp_path: Path) -> None:
    folder(tmp_path, tokenizer_config={"bos_token": "</s>"})
    folder(tmp_path, model=trained())
    assert Tokenizer.from_file(tmp_path).piece(0) == LETTERS[0]
    assert Tokenizer.from_file(tmp_path).bos_token == "</s>"
    assert Tokenizer.from_file(tmp_path / "tokenizer.json").bos_token == "<s>"
    shutil.copy(tmp_path / "tokenizer.json", tmp_path / "by-content")
    assert Tokenizer.from_file(tmp_path / "by-content").bos_token == "<s>"
