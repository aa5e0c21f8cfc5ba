"""SmolLM3 (Bakouch et al. 2025): Llama without RoPE in every fourth layer (NoPE, Yang et al. 2025)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import SimpleNamespace

from ..program import Tensor
from ..weights.source import ModelSource
from .llama import Config, Llama


@dataclass(frozen=True, kw_only=True)
class SmolLM3Config(Config):
    """rope_layers: which layers rotate."""

    rope_layers: tuple[bool, ...]


class SmolLM3(Llama):
    """q, k without positions where the layer is none of rope_layers"""

    config: SmolLM3Config

    def place(self, q: Tensor, k: Tensor, w: SimpleNamespace, layer: int) -> tuple[Tensor, Tensor]:
        return super().place(q, k, w, layer) if self.config.rope_layers[layer] else (q, k)

    @classmethod
    def read_config(cls, source: ModelSource) -> SmolLM3Config:
        config = super().read_config(source)
        every_fourth = [(i + 1) % 4 != 0 for i in range(config.n_layers)]  # GGUF does not say
        layers = source.get_array("smollm3.rope_layers", "bool", every_fourth, length=config.n_layers)
        return SmolLM3Config(**dataclasses.asdict(config), rope_layers=tuple(bool(r) for r in layers))


MODEL = SmolLM3
