"""Granite 3 (IBM 2024): Llama with a multiplier at the embedding, the attention, each residual and
the logits, for learning rates that carry over from small models (Yang et al. 2022)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ..program import Graph, Tensor
from ..weights.source import ModelSource
from .llama import Config, Llama


@dataclass(frozen=True, kw_only=True)
class GraniteConfig(Config):
    """With the multipliers; `logit_scale` divides."""

    embedding_scale: float
    attention_scale: float
    residual_scale: float
    logit_scale: float


class Granite(Llama):
    """x = a E[token]; x + b f(norm(x)); logits / c"""

    config: GraniteConfig

    def embed(self, graph: Graph) -> Tensor:
        return super().embed(graph) * self.config.embedding_scale

    def attention_scale(self) -> float:
        return self.config.attention_scale

    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y * self.config.residual_scale

    def logits(self, x: Tensor) -> Tensor:
        return super().logits(x) * (1 / self.config.logit_scale)

    @classmethod
    def read_config(cls, source: ModelSource) -> GraniteConfig:
        config = super().read_config(source)

        def scale(name: str, default: float) -> float:
            found: float = source.get_float(f"granite.{name}", default, min=1e-9, max=1e9)
            return found

        return GraniteConfig(
            **dataclasses.asdict(config),
            embedding_scale=scale("embedding_scale", 1.0),
            attention_scale=scale("attention.scale", config.head_dim**-0.5),
            residual_scale=scale("residual_scale", 1.0),
            logit_scale=scale("logit_scale", 1.0),
        )


MODEL = Granite
