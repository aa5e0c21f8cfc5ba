"""What the model learns from: stories, and chats about them."""

from __future__ import annotations

import random
from collections.abc import Iterator

from .chat import Message, converse
from .generator import tell

STORIES = 0.5  # of the documents


def documents(rng: random.Random, n: int | None = None) -> Iterator[str | list[Message]]:
    """n documents, or without end: a story as text, or the messages of a chat."""
    while n is None or n > 0:
        yield tell(rng).text if rng.random() < STORIES else converse(rng)
        n = n and n - 1
