"""Trains the storyteller: python -m storyteller.train OUT_DIR [--steps N]. Same seed, same data and start."""

from __future__ import annotations

import argparse
import math
import os
import random
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from torch.nn import functional as F

from .corpus import documents
from .model import Config, Llama
from .tokens import Encoder, train_vocabulary

SEED = 1
BATCH_TOKENS = 4096
PEAK_LR, LAST_LR, WARMUP = 2e-3, 0.02, 100
WEIGHT_DECAY, BETAS, CLIP = 0.05, (0.9, 0.98), 1.0
SAVE_SECONDS = 120

Batch = tuple[torch.Tensor, torch.Tensor, list[int]]


def batches(encoder: Encoder, rng: random.Random, n_ctx: int) -> Iterator[Batch]:
    """Whole documents packed into one row: ids, targets and the documents' lengths."""
    ids: list[int] = []
    targets: list[int] = []
    lengths: list[int] = []
    for document in documents(rng):
        x, y = encoder.document(document)
        ids, targets, lengths = ids + x[:n_ctx], targets + y[:n_ctx], [*lengths, min(len(x), n_ctx)]
        if len(ids) >= BATCH_TOKENS:
            yield torch.tensor(ids), torch.tensor(targets), lengths
            ids, targets, lengths = [], [], []


def optimizer_of(model: Llama) -> torch.optim.Optimizer:
    """AdamW that decays matrices only."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, PEAK_LR, BETAS, fused=True)


def rate(step: int, steps: int) -> float:
    """Linear warmup, then a cosine down to LAST_LR of the peak."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    done = (step - WARMUP) / max(1, steps - WARMUP)
    return LAST_LR + (1 - LAST_LR) * 0.5 * (1 + math.cos(math.pi * done))


def save(model: Llama, vocabulary: bytes, step: int, path: Path) -> None:
    """A checkpoint, whole or not at all."""
    part = path.with_suffix(".part")
    state = {"config": asdict(model.c), "weights": model.state_dict(), "vocabulary": vocabulary, "step": step}
    torch.save(state, part)
    os.replace(part, path)


def train(out: Path, steps: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    vocabulary = train_vocabulary(SEED)
    encoder = Encoder(vocabulary)
    model = Llama(Config(encoder.processor.vocab_size()))
    optimizer = optimizer_of(model)
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)
    begin = saved = time.monotonic()
    n_tokens = 0
    for step, (ids, targets, lengths) in enumerate(batches(encoder, random.Random(SEED + 1), model.c.n_ctx)):
        if step == steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = PEAK_LR * rate(step, steps)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(ids, lengths)
        loss = F.cross_entropy(logits.float(), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        n_tokens += len(ids)
        now = time.monotonic()
        if step % 20 == 0:
            speed = n_tokens / (now - begin)
            print(f"{step:5d} loss {loss.item():.4f} {speed:.0f} tokens/s {now - begin:.0f} s", flush=True)
        if now - saved > SAVE_SECONDS:
            save(model, vocabulary, step + 1, out / "model.pt")
            saved = now
    save(model, vocabulary, steps, out / "model.pt")
    print(f"{steps} steps, {n_tokens} tokens, {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for model.pt")
    parser.add_argument("--steps", type=int, default=4000)
    arguments = parser.parse_args()
    train(arguments.out, arguments.steps)
