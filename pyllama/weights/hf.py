"""A Hugging Face folder: config.json and safetensors, under GGUF's keys and names.

The layout of a safetensors file: length u64 of a JSON header | the header | the tensors. Its
library checks the header, with every extent; this module reads where each tensor lies.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from typing import Final, final

from pyllama.errors import UnsupportedModelError

from .gguf_header import load_error, pread, show
from .hf_config import metadata_of
from .json_file import JsonObject, read_json
from .source import ModelSource, TensorInfo

INDEX: Final = "model.safetensors.index.json"
SINGLE: Final = "model.safetensors"
MAX_HEADER: Final = 100_000_000  # bytes, by the library
DTYPES: Final = {"F32": 4, "F16": 2, "BF16": 2}
"""Types that weights may have, and their bytes per value."""

NAMES: Final = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""transformers' modules -> GGUF's, those of a block without `model.layers.<i>.`"""

_BLOCK: Final = re.compile(r"model\.layers\.(\d{1,4})\.(.+)")
_IGNORED: Final = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")  # by old versions


def gguf_name(name: str) -> str:
    """GGUF's name of a tensor; its own if it is unknown here."""
    module, _, kind = name.rpartition(".")
    block = _BLOCK.fullmatch(module)
    known = NAMES.get(block[2] if block else module)
    if known is None or kind not in ("weight", "bias"):
        return name
    return f"blk.{int(block[1])}.{known}.{kind}" if block else f"{known}.{kind}"


@final
class HFFolder(ModelSource):
    """An open Hugging Face folder. Errors name the file in it.

    Raises OSError for files that are missing or cannot be read, ModelLoadError for broken ones,
    UnsupportedModelError for other model types, weights and quantizations.
    """

    kind = "safetensors"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.size, self.tensors = 0, {}
        try:
            config = read_json(os.path.join(self.path, "config.json"))
            self.metadata = metadata_of(config)
            for name, expected in self._shards().items():
                self._read_shard(os.path.join(self.path, name), expected)
            if config.get("tie_word_embeddings", bool) and "output.weight" in self.tensors:
                del self.tensors["output.weight"]
        except BaseException:
            self.close()
            raise

    def _shards(self) -> dict[str, set[str] | None]:
        """The safetensors files with the tensors that the index says are in them."""
        index_path = os.path.join(self.path, INDEX)
        single = os.path.join(self.path, SINGLE)
        if not os.path.exists(index_path):
            if not os.path.exists(single):
                found = sorted(
                    f for f in os.listdir(self.path) if f.endswith((".bin", ".pth", ".safetensors"))
                )
                expected = f"{SINGLE} or {INDEX}"
                raise load_error(self.path, "folder", expected, ", ".join(found[:3]) or "neither")
            return {SINGLE: None}
        index = read_json(index_path)
        weights = index.object("weight_map") or JsonObject(index_path, {})
        shards: dict[str, set[str] | None] = {}
        for tensor, shard in weights.values.items():
            if (
                not isinstance(shard, str)
                or os.path.basename(shard) != shard
                or not shard.endswith(".safetensors")
            ):
                raise load_error(
                    index_path, f"weight_map.{show(tensor)}", "a file of the folder", show(shard)
                )
            names = shards.setdefault(shard, set())
            assert names is not None
            names.add(tensor)
        if not shards:
            raise load_error(index_path, "weight_map", "tensors", "none")
        return shards

    def _read_shard(self, path: str, expected: set[str] | None) -> None:
        """Adds the tensors of one file."""
        fd, size = self.open(path)
        self.size += size
        header = _read_header(path, fd, size)
        if expected is not None and expected != header.keys():
            odd = sorted(expected ^ header.keys())[0]
            where = "no such tensor" if odd in expected else "a tensor that the index does not list"
            raise load_error(path, f"tensor {show(odd)}", "what the index lists", where)
        for name, (dtype, shape, (begin, end)) in header.items():
            if _IGNORED.fullmatch(name):
                continue
            ours = gguf_name(name)
            if dtype not in DTYPES:
                one_of = ", ".join(DTYPES)
                raise load_error(path, f"dtype of {show(name)}", one_of, dtype, UnsupportedModelError)
            if ours in self.tensors:
                raise load_error(path, f"tensor {show(name)}", "unique names", "it again")
            self.tensors[ours] = TensorInfo(ours, dtype, tuple(shape), begin, end - begin, fd, path)


def _read_header(path: str, fd: int, size: int) -> dict[str, tuple[str, list[int], tuple[int, int]]]:
    """dtype, shape and extent in the file of each tensor, after the library has checked them all."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, ValueError, OSError) as error:
        raise load_error(path, "header", "safetensors", show(str(error))) from None
    length = struct.unpack("<Q", pread(fd, 8, 0))[0]
    if length > min(MAX_HEADER, size):
        raise load_error(path, "header length", f"<= {MAX_HEADER} bytes", length)
    header = json.loads(pread(fd, length, 8))
    header.pop("__metadata__", None)
    found = {}
    for name, t in header.items():
        begin, end = (8 + length + offset for offset in t["data_offsets"])
        itemsize = DTYPES.get(t["dtype"], 0)
        fits = not itemsize or math.prod(t["shape"]) * itemsize == end - begin
        if not fits or end > size:
            raise load_error(
                path, f"tensor {show(name)}", "an extent of its shape in the file", f"{begin}:{end}"
            )
        found[name] = (t["dtype"], t["shape"], (begin, end))
    return found
