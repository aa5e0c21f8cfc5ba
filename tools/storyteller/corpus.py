"""What the model learns from: stories, chats about stories, and chats about a few lines."""

from __future__ import annotations

import random
from collections.abc import Iterator

from .chat import Message, converse, read
from .generator import tell

STORIES, READINGS = 0.4, 0.2  # of the documents; the rest are chats


def documents(rng: random.Random, n: int | None = None) -> Iterator[str | list[Message]]:
    """n documents, or without end: a story as text, or the messages of a chat."""
    while n is None or n > 0:
        kind = rng.random()
        if kind < STORIES:
            yield tell(rng).text
        else:
            yield read(rng) if kind < STORIES + READINGS else converse(rng)
        n = n and n - 1
