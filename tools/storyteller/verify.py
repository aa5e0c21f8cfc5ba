"""Does pyllama compute what was trained? python -m storyteller.verify MODEL.pt

Exports the checkpoint in F32 and compares the logits of a story with those of torch.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

import numpy as np
import torch

from pyllama import LLM

from .export import export, load_checkpoint
from .generator import tell
from .model import Config, Llama
from .tokens import Encoder

TOLERANCE = 1e-4  # of the largest logit


def difference(path: Path) -> float:
    """The largest difference of a logit over one story, as a share of the largest logit."""
    checkpoint = load_checkpoint(path)
    ids, _, _ = Encoder(checkpoint["vocabulary"]).story(tell(random.Random(0)).text)
    model = Llama(Config(**checkpoint["config"]))
    model.load_state_dict(checkpoint["weights"])
    with torch.no_grad():
        expected = model(torch.tensor(ids), [len(ids)]).numpy()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "f32.gguf"
        export(checkpoint, file, "F32")
        with LLM(file, compute="f32") as llm:
            return float(np.abs(llm.logits(ids) - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    found = difference(parser.parse_args().checkpoint)
    print(f"largest difference of a logit: {found:.2e} of the largest")
    if not found <= TOLERANCE:
        raise SystemExit(f"expected at most {TOLERANCE}")
