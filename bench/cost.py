"""What a test costs at least: bytes of memory to read, multiply-adds to do. By them and the machine's limits,
how fast it could be."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from pyllama.roofline import Roofline
from pyllama.weights import open_model

ACTS = {"F32": "F32", "F16": "F32", "BF16": "BF16"}  # type of weights -> the multiply-adds; others: int8


@dataclass(frozen=True)
class Cost:
    """Of one forward. macs: by kind."""

    n_bytes: float
    macs: dict[str, float]

    def seconds(self, roofline: Roofline) -> float:
        """At the limits: reading and multiplying at the same time."""
        multiplying = sum(n / roofline.macs_per_s[kind] for kind, n in self.macs.items())
        return max(self.n_bytes / roofline.bytes_per_s, multiplying)


class Model:
    """The costs of a model file. file_bytes: its size; kv_bytes: of a token's keys and values in f16."""

    def __init__(self, path: str) -> None:
        with open_model(path) as source:
            meta, arch = source.metadata, source.metadata["general.architecture"]
            tensors = dict(source.tensors)
            self.file_bytes = source.size
        n_heads = int(meta[f"{arch}.attention.head_count"])
        n_kv_heads = int(meta.get(f"{arch}.attention.head_count_kv", n_heads))
        head_dim = int(meta.get(f"{arch}.attention.key_length", meta[f"{arch}.embedding_length"] // n_heads))
        n_layers = int(meta[f"{arch}.block_count"])
        self.n_ctx = int(meta[f"{arch}.context_length"])
        self.name = meta.get("general.name", arch)
        self.kv_bytes = n_layers * n_kv_heads * head_dim * 2 * 2
        self._attention = n_layers * n_heads * head_dim * 2  # multiply-adds per key and query
        self._bytes: Counter[str] = Counter()
        self._macs: dict[str, Counter[str]] = {"layers": Counter(), "head": Counter()}
        head = "output.weight" if "output.weight" in tensors else "token_embd.weight"
        for name, info in tensors.items():
            if len(info.shape) == 2 and (name.startswith("blk.") or name == head):
                part = "head" if name == head else "layers"
                self._bytes[part] += info.nbytes
                self._macs[part][ACTS.get(info.type, "I8")] += info.shape[0] * info.shape[1]

    def cost(self, n: int, depth: int, n_outputs: int) -> Cost:
        """A forward of n tokens of one sequence, or of n sequences of a token each (n_outputs > 1), each with
        `depth` tokens before."""
        one_sequence = n_outputs == 1
        keys = n * depth + (n * (n + 1) // 2 if one_sequence else n)
        macs = Counter({kind: m * n for kind, m in self._macs["layers"].items()})
        macs[max(macs, key=lambda kind: macs[kind])] += self._attention * keys
        for kind, m in self._macs["head"].items():
            macs[kind] += m * n_outputs
        read = (depth if one_sequence else depth * n) * self.kv_bytes
        return Cost(sum(self._bytes.values()) + read, dict(macs))
