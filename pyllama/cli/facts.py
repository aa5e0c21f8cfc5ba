"""What a model file says of itself, for `inspect` and for the rows of `bench`."""

from __future__ import annotations

import collections
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyllama.weights.source import ModelSource


@dataclass(frozen=True)
class Facts:
    """Numbers about a file's tensors. types: name -> (tensors, parameters, bytes), largest first."""

    architecture: str
    n_params: int
    n_bytes: int
    types: dict[str, tuple[int, int, int]]

    @property
    def model_type(self) -> str:
        """Architecture, size and main type, such as `llama 1.1B Q4_K`."""
        n = self.n_params
        if not n:
            return self.architecture
        unit, letter = next(((u, c) for u, c in ((10**9, "B"), (10**6, "M")) if n >= u), (1000, "K"))
        size = f"{n / unit:.1f}" if n < 10 * unit else f"{n / unit:.0f}"
        return " ".join((self.architecture, size + letter, *list(self.types)[:1]))


def facts_of(file: ModelSource) -> Facts:
    """Counts the tensors of `file`."""
    counts: collections.Counter[str] = collections.Counter()
    params: collections.Counter[str] = collections.Counter()
    sizes: collections.Counter[str] = collections.Counter()
    for t in file.tensors.values():
        counts[t.type] += 1
        params[t.type] += math.prod(t.shape)
        sizes[t.type] += t.nbytes
    types = {name: (counts[name], params[name], n) for name, n in sizes.most_common()}
    architecture = file.get_str("general.architecture", "?")
    return Facts(architecture, params.total(), sizes.total(), types)
