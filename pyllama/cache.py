"""KV blocks: who holds which."""

from __future__ import annotations

from . import _core
from .errors import OutOfKVBlocks
from .plan import KVPlan


class BlockPool:
    """The blocks of the KV cache, handed out lowest first so that touched memory stays small."""

    def __init__(self, plan: KVPlan, memory: _core.Memory) -> None:
        self.plan = plan
        self.memory = memory
        self.free = list(range(plan.n_blocks - 1, -1, -1))
        self.used: set[int] = set()  # ever written: to be cleared before the next use

    def take(self) -> int:
        """A block of zeros. Raises OutOfKVBlocks."""
        if not self.free:
            raise OutOfKVBlocks(f"all {self.plan.n_blocks} KV blocks of {_core.KV_BLOCK} tokens are in use")
        block = self.free.pop()
        if block in self.used:  # a stale NaN in a masked lane would poison a tile
            self.memory.zero(block * self.plan.block_bytes, self.plan.block_bytes)
        self.used.add(block)
        return block

    def give_back(self, blocks: list[int]) -> None:
        """Returns blocks and empties the list."""
        self.free.extend(reversed(blocks))
        blocks.clear()

    def reset(self) -> None:
        """All blocks free again."""
        self.free = list(range(self.plan.n_blocks - 1, -1, -1))


def blocks_for(n_tokens: int) -> int:
    """Blocks that n tokens need."""
    return -(-n_tokens // _core.KV_BLOCK)
