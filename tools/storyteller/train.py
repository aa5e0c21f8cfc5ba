"""Trains the storyteller: python -m storyteller.train OUT_DIR [--steps N]. Same seed, same data and start.

The rate stays at its peak for the first part of the run and then falls to zero. A run that was stopped goes
on with --resume.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from .corpus import documents
from .model import Config, Llama
from .tokens import Encoder, train_vocabulary

SEED = 1
BATCH_TOKENS = 2048
MUON_RATE, EMBEDDING_RATE, NORM_RATE = 0.02, 0.01, 1e-3
WARMUP, FALL = 50, 0.9  # steps; the part of the steps in which the rate falls
FOCUS = 0.6  # the part of the steps in which repeated facts weigh more than other words
DRILLS, DRILL_PART = 120, 0.1  # steps of nothing but drills; their part of the documents after that
WEIGHT_DECAY, BETAS, CLIP = 0.01, (0.9, 0.98), 1.0
SAVE_SECONDS = 120

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[int]]


def batches(encoder: Encoder, rng: random.Random, n_ctx: int) -> Iterator[Batch]:
    """Whole documents packed into one row: ids, targets, weights and lengths. Drills come first."""
    texts, row, n_batches = documents(rng), [], 0
    while True:
        drill = n_batches < DRILLS or rng.random() < DRILL_PART
        document = encoder.drill(rng) if drill else encoder.document(next(texts))
        row.append([part[:n_ctx] for part in document])
        lengths = [len(ids) for ids, _, _ in row]
        if sum(lengths) >= BATCH_TOKENS:
            ids, targets, weights = (torch.tensor(list(chain(*parts))) for parts in zip(*row, strict=True))
            yield ids, targets, weights, lengths
            row, n_batches = [], n_batches + 1


def optimizers_of(model: Llama) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for embedding and norms."""
    matrices = [p for p in model.layers.parameters() if p.ndim == 2]
    norms = [p for p in model.parameters() if p.ndim == 1]
    return [
        torch.optim.Muon(matrices, MUON_RATE, weight_decay=WEIGHT_DECAY),
        torch.optim.AdamW([model.embedding.weight], EMBEDDING_RATE, BETAS, weight_decay=0.0, fused=True),
        torch.optim.AdamW(norms, NORM_RATE, BETAS, weight_decay=0.0, fused=True),
    ]


def rate(step: int, steps: int) -> float:
    """A part of the peak: up in WARMUP steps, constant, down to zero in the last FALL of the steps."""
    return min(1.0, (step + 1) / WARMUP, (steps - step) / (FALL * steps))


def save(state: dict[str, Any], path: Path) -> None:
    """A checkpoint, whole or not at all."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def learn(model: Llama, optimizers: list[torch.optim.Optimizer], scale: float, batch: Batch) -> float:
    """One step at a part of the peak rates; the loss before it."""
    ids, targets, weights, lengths = batch
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(ids, lengths)
    losses = F.cross_entropy(logits.float(), targets, reduction="none")
    loss = losses @ weights / weights.sum()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = scale * optimizer.defaults["lr"]
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def train(out: Path, steps: int, resume: bool) -> None:
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    vocabulary = train_vocabulary(SEED)
    encoder = Encoder(vocabulary)
    model = Llama(Config(encoder.processor.vocab_size()))
    optimizers = optimizers_of(model)
    done = load(out / "state.pt", model, optimizers) if resume else 0
    print(f"{sum(p.numel() for p in model.parameters())} parameters, from step {done}", flush=True)

    def save_all(step: int) -> None:
        weights = model.state_dict()
        save({"config": asdict(model.c), "weights": weights, "vocabulary": vocabulary}, out / "model.pt")
        states = [optimizer.state_dict() for optimizer in optimizers]
        save({"weights": weights, "optimizers": states, "step": step}, out / "state.pt")

    begin = saved = time.monotonic()
    n_tokens, mean = 0, 0.0
    data = islice(batches(encoder, random.Random(SEED + 1), model.c.n_ctx), done, steps)
    for step, batch in enumerate(data, done):
        if step >= FOCUS * steps:
            batch[2].clamp_(max=1.0)
        loss = learn(model, optimizers, rate(step, steps), batch)
        mean = 0.95 * mean + 0.05 * loss if mean else loss
        n_tokens += len(batch[0])
        now = time.monotonic()
        if step % 20 == 0:
            speed = n_tokens / (now - begin)
            print(f"{step:5d} loss {mean:.4f} {speed:.0f} tokens/s {now - begin:.0f} s", flush=True)
        if now - saved > SAVE_SECONDS:
            save_all(step + 1)
            saved = now
    save_all(steps)
    print(f"{steps} steps, {n_tokens} tokens, {time.monotonic() - begin:.0f} s", flush=True)


def load(path: Path, model: Llama, optimizers: list[torch.optim.Optimizer]) -> int:
    """Puts a saved state in place; its step."""
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["weights"])
    for optimizer, optimizer_state in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(optimizer_state)
    return state["step"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for model.pt and state.pt")
    parser.add_argument("--steps", type=int, default=7600)
    parser.add_argument("--resume", action="store_true", help="go on from state.pt")
    arguments = parser.parse_args()
    train(arguments.out, arguments.steps, arguments.resume)
