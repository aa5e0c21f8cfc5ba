"""The files that a tokenizer is read from: one by itself, or a Hugging Face folder's several."""

from __future__ import annotations

import dataclasses
import os
import re
from typing import Any, Final

from pyllama.spm import SentencePieceVocabulary, read_model_proto
from pyllama.tokenizer_json import Pieces, read_tokenizer_json
from pyllama.vocabulary import Vocabulary
from pyllama.weights.gguf_header import MAX_ARRAY, load_error, show
from pyllama.weights.json_file import MAX_BYTES, JsonObject, read_file, read_json, show_json

MAX_MODEL_BYTES: Final = 32 << 20  # several times the largest tokenizer.model known
MAX_TEMPLATE_BYTES: Final = 1 << 20
# A tokenizer.model may begin with "\n{" as well: its first piece then is some 114 bytes long.
_begins_json = re.compile(rb'\s*\{\s*["}]').match


def is_gguf(path: str) -> bool:
    """Whether a file begins as GGUF does. Raises OSError."""
    if not os.path.isfile(path):
        os.stat(path)  # the OSError of what is not there
        return False
    with open(path, "rb") as file:
        return file.read(4) == b"GGUF"


def read_vocabulary(path: str) -> Vocabulary:
    """The vocabulary of a tokenizer.json, a tokenizer.model or a folder. Raises as from_file."""
    return _read_folder(path) if os.path.isdir(path) else _read_one(path).settled()


def _read_one(path: str) -> Vocabulary:
    data = read_file(path, MAX_BYTES)
    if path.endswith(".json") or _begins_json(data):
        return read_tokenizer_json(read_json(path, data))
    if len(data) > MAX_MODEL_BYTES:
        most = f"a GGUF file, a tokenizer.json or <= {MAX_MODEL_BYTES} bytes"
        raise load_error(path, "file", most, f"{len(data)} bytes")
    return read_model_proto(data, path)


def _read_folder(folder: str) -> Vocabulary:
    names = ("tokenizer.json", "tokenizer.model")
    paths = [p for name in names if os.path.exists(p := os.path.join(folder, name))]
    if not paths:
        raise load_error(folder, "folder", " or ".join(names), "neither")
    config, model, generation = (
        _optional(os.path.join(folder, f"{name}.json"))
        for name in ("tokenizer_config", "config", "generation_config")
    )
    vocab = _with_added(_read_one(paths[0]), config, model)
    vocab = _with_config(vocab, config, generation, model)
    template = _template(folder, config)
    stops = {i for file in (generation, model) for i in _ids(file, "eos_token_id", len(vocab.pieces))}
    vocab = dataclasses.replace(vocab, chat_template=template).settled()
    # After settling: a model may stop at a token of plain text, such as a newline.
    return dataclasses.replace(vocab, stop_ids=vocab.stop_ids | stops)


def _optional(path: str) -> JsonObject:
    """A JSON file, or an empty object if there is none."""
    return read_json(path) if os.path.exists(path) else JsonObject(path, {})


def _with_added(vocab: Vocabulary, config: JsonObject, model: JsonObject) -> Vocabulary:
    """With the tokens of added_tokens_decoder, and an id for each row of the model's embedding."""
    found = Pieces(list(vocab.pieces), bytearray(vocab.types))
    found.flags.update(vocab.flags)
    added = config.object("added_tokens_decoder") or JsonObject(config.path, {})
    for key in added.values:
        entry = added.object(key)
        if not re.fullmatch("[0-9]{1,7}", key) or int(key) >= MAX_ARRAY or entry is None:
            raise load_error(config.path, f"added_tokens_decoder.{key}", "a token under its id", show(key))
        # transformers lets it rename the unused pieces of a tokenizer.model
        found.add(entry, int(key), replace=isinstance(vocab, SentencePieceVocabulary))
    if model.get("vocab_size", int) is not None:
        n = model.values["vocab_size"]
        if not 0 <= n <= MAX_ARRAY:
            raise model.bad("vocab_size", f"0 to {MAX_ARRAY}")
        found.pad(n)
    more: dict[str, Any] = {}
    if isinstance(vocab, SentencePieceVocabulary):
        more["scores"] = vocab.scores + bytes(4 * (len(found.pieces) - len(vocab.pieces)))
    return dataclasses.replace(
        vocab, pieces=found.pieces, types=bytes(found.types), flags=found.flags, **more
    )


def _with_config(
    vocab: Vocabulary, config: JsonObject, generation: JsonObject, model: JsonObject
) -> Vocabulary:
    """With BOS, EOS and whether they are added, as far as tokenizer_config.json says it."""
    changes: dict[str, Any] = {}
    n = len(vocab.pieces)
    for name in ("bos", "eos"):
        own = getattr(vocab, f"{name}_id")
        token = own
        if f"{name}_token" in config.values:
            token = _spelled(vocab, config, f"{name}_token")
            token = own if token is None else token  # a template adds its BOS whatever this file says
        elif own is None:
            ids = [i for file in (generation, model) for i in _ids(file, f"{name}_token_id", n)]
            token = ids[0] if ids else None
        changes[f"{name}_id"] = token
        add = config.get(f"add_{name}_token", bool)
        changes[f"add_{name}"] = getattr(vocab, f"add_{name}") if add is None else add
        if add and token is None:
            raise config.bad(f"{name}_token", f"a piece of the vocabulary, as add_{name}_token is true")
    if isinstance(vocab, SentencePieceVocabulary):
        if config.get("add_prefix_space", bool) is False:
            changes["space_prefix"] = False
        changes["prefix_parts"] = config.get("legacy", bool) is not False
    return dataclasses.replace(vocab, **changes)


def _spelled(vocab: Vocabulary, config: JsonObject, key: str) -> int | None:
    """The id of a token that is given by its text or as an object; None if there is no such piece."""
    as_object = config.object(key) if isinstance(config.values[key], dict) else None
    piece = as_object.get("content", str) if as_object else config.get(key, str)
    return vocab.pieces.index(piece) if piece in vocab.pieces else None


def _ids(file: JsonObject, key: str, n: int) -> list[int]:
    """The token ids of a number or an array of numbers."""
    value = file.values.get(key)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for i in ids:
        if type(i) is not int or not 0 <= i < n:
            raise load_error(file.path, key, f"token ids < {n}", show_json(i))
    return ids


def _template(folder: str, config: JsonObject) -> str | None:
    """The default chat template: a file of its own goes before tokenizer_config.json."""
    path = os.path.join(folder, "chat_template.jinja")
    if os.path.exists(path):
        data = read_file(path, MAX_TEMPLATE_BYTES)
        try:
            return data.decode()
        except UnicodeDecodeError as e:
            found = f"byte 0x{data[e.start]:02x} at {e.start} ({e.reason})"
            raise load_error(path, "file", "UTF-8", found) from None
    if not isinstance(config.values.get("chat_template"), list):
        return config.get("chat_template", str)
    for entry in config.objects("chat_template"):
        if entry.get("name", str) == "default":
            return entry.get("template", str)
    return None
