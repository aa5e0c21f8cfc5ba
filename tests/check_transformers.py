"""Every architecture against transformers: python tests/check_transformers.py [--write]

transformers makes each model of hfmodel.CONFIGS, takes the same weights, saves the folder in its
own dialect and computes logits; pyllama reads that folder. --write keeps the logits in
tests/golden_architectures.npz for the tests that have no transformers.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from ggufmodel import forward
from hfmodel import CONFIGS, IDS, N_CTX, ROWS, Fields, version5, weights

GOLDEN = Path(__file__).with_name("golden_architectures.npz")
LIMIT = 1e-4


def theirs(config: Fields, folder: Path) -> np.ndarray:
    """transformers' float32 logits [n, vocab]; the model is saved in `folder`."""
    five = int(transformers.__version__.split(".")[0]) >= 5
    fields = version5(config) if five else config
    made = transformers.AutoConfig.for_model(**fields)
    made._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(made, dtype=torch.float32).eval()
    state = {name: torch.from_numpy(w) for name, w in weights(config).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    if config["tie_word_embeddings"]:
        model.tie_weights()
    model.save_pretrained(folder)
    with torch.no_grad():
        return model(torch.tensor([IDS])).logits[0].numpy()


def main() -> int:
    transformers.logging.set_verbosity_error()
    golden, bad = {}, 0
    for name, config in CONFIGS.items():
        with tempfile.TemporaryDirectory() as folder:
            expected = theirs(config, Path(folder))
            found = forward(folder, [[(0, IDS)]], compute="f32", n_ctx=N_CTX.get(name))[0]
        worst = float(np.abs(found - expected).max())
        bad += not worst <= LIMIT
        print(f"{name:24} largest logit {np.abs(expected).max():6.2f}  largest difference {worst:.1e}")
        golden[name] = expected[ROWS]
    if "--write" in sys.argv:
        np.savez_compressed(GOLDEN, **golden)
    print(f"transformers {transformers.__version__}: {len(CONFIGS) - bad} of {len(CONFIGS)} within {LIMIT}")
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
