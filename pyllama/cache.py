"""KV blocks: who holds which, and which are kept for sequences to come."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Sequence

from . import _core
from .errors import OutOfKVBlocks
from .plan import KVPlan

ROOT = 0  # what comes before a sequence's first block


class BlockPool:
    """The blocks of the KV cache: free, held by sequences, or kept.

    A full block can be remembered by its token ids and by what comes before it, so that a sequence
    that begins alike holds it too instead of computing it again; nobody writes to it any more. When
    the last holder gives it back it is kept, until blocks are wanted and none is free: then the one
    goes that nobody has used for longest. Contents are compared, not hashed: a block is found by
    the node of the block before it, a number that is never used again, and by its own 32 ids.

    Free blocks are handed out lowest first so that touched memory stays small.
    """

    def __init__(self, plan: KVPlan, memory: _core.Memory) -> None:
        self.plan = plan
        self.memory = memory
        self.used: set[int] = set()  # ever written: to be cleared before the next use
        self.reset()

    def reset(self) -> None:
        """All blocks free again."""
        self.free = list(range(self.plan.n_blocks - 1, -1, -1))
        self.holders = [0] * self.plan.n_blocks  # sequences that hold a block
        self.index: dict[tuple[int, bytes], int] = {}  # (node before, ids) -> block
        self.keys: dict[int, tuple[int, bytes]] = {}  # block -> its key in the index
        self.nodes: dict[int, int] = {}  # block -> node; a block with the content of another has its node
        self.kept: dict[int, None] = {}  # in the index and held by none, longest unused first
        self.new_node = itertools.count(ROOT + 1)

    @property
    def available(self) -> int:
        """Blocks that take() can hand out."""
        return len(self.free) + len(self.kept)

    def take(self) -> int:
        """A block of zeros. Raises OutOfKVBlocks."""
        if self.free:
            block = self.free.pop()
        elif self.kept:
            block = next(iter(self.kept))
            del self.kept[block], self.nodes[block], self.index[self.keys.pop(block)]
        else:
            raise OutOfKVBlocks(f"all {self.plan.n_blocks} KV blocks of {_core.KV_BLOCK} tokens are in use")
        if block in self.used:  # a stale NaN in a masked lane would poison a tile
            self.memory.zero(block * self.plan.block_bytes, self.plan.block_bytes)
        self.used.add(block)
        self.holders[block] = 1
        return block

    def find(self, ids: Sequence[int]) -> list[int]:
        """Blocks that hold the beginning of `ids`, now held once more.

        They end before the last token, which the caller has to compute anyway, to go on from it."""
        blocks: list[int] = []
        node = ROOT
        for i in range((len(ids) - 1) // _core.KV_BLOCK):
            block = self.index.get((node, _content(ids, i)))
            if block is None:
                break
            node = self.nodes[block]
            blocks.append(block)
        for block in blocks:
            self.holders[block] += 1
            self.kept.pop(block, None)
        return blocks

    def remember(self, ids: Sequence[int], blocks: list[int], n_computed: int) -> None:
        """Lets others find those blocks of a sequence that its first n tokens fill."""
        first = full = n_computed // _core.KV_BLOCK
        while first and blocks[first - 1] not in self.nodes:
            first -= 1
        for i in range(first, full):
            key = (self.nodes[blocks[i - 1]] if i else ROOT, _content(ids, i))
            block = self.index.setdefault(key, blocks[i])
            if block == blocks[i]:
                self.keys[block], self.nodes[block] = key, next(self.new_node)
            self.nodes[blocks[i]] = self.nodes[block]

    def give_back(self, blocks: list[int]) -> None:
        """Ends a sequence's hold of its blocks and empties the list."""
        for block in reversed(blocks):  # the end of a sequence is forgotten before its beginning
            self.holders[block] -= 1
            if self.holders[block]:
                continue
            if block in self.keys:
                self.kept[block] = None
            else:
                self.nodes.pop(block, None)
                self.free.append(block)
        blocks.clear()


def _content(ids: Sequence[int], i: int) -> bytes:
    """The token ids of block i."""
    return array("i", ids[i * _core.KV_BLOCK : (i + 1) * _core.KV_BLOCK]).tobytes()


def blocks_for(n_tokens: int) -> int:
    """Blocks that n tokens need."""
    return -(-n_tokens // _core.KV_BLOCK)
