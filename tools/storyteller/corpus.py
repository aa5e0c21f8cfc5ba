"""What the model learns from: stories, chats about stories, about a few lines, and about beginnings."""

from __future__ import annotations

import random
from collections.abc import Iterator

from .chat import Message, begin, converse, read
from .generator import tell

# parts of the documents
SHARES = {"story": 0.37, "chat": 0.38, "reading": 0.15, "beginning": 0.1}


def documents(rng: random.Random, n: int | None = None) -> Iterator[str | list[Message]]:
    """n documents, or without end: a story as text, or the messages of a chat."""
    while n is None or n > 0:
        kind = rng.choices(list(SHARES), list(SHARES.values()))[0]
        if kind == "story":
            yield tell(rng).text
        else:
            yield {"chat": converse, "reading": read, "beginning": begin}[kind](rng)
        n = n and n - 1
