"""Finds given strings in a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pyllama.vocabulary import Flags

# Unicode's White_Space: str.strip() and \s would add U+001C to U+001F.
_WHITESPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_skip_spaces = re.compile(f"[{_WHITESPACE}]*").match
_is_word = re.compile(r"\w").match


class Matcher:
    """Cuts a text at the occurrences of given strings, from the left, the longest first.

    `ids` are those of the strings; `flags`, by id, say what else must be, or is taken, around one.
    """

    def __init__(self, ids: dict[str, int], flags: Mapping[int, Flags] | None = None) -> None:
        self._ids, self._flags = ids, flags or {}
        lengths: dict[str, set[int]] = {}
        for key in ids:
            lengths.setdefault(key[:2], {1} if key[0] in ids else set()).add(len(key))
        # By the first two characters: vocabularies with thousands of tags share the first.
        self._lengths = {head: sorted(n, reverse=True) for head, n in lengths.items()}
        heads = "".join(re.escape(c) for c in {key[0] for key in ids})
        self._search = re.compile(f"[{heads}]" if heads else "(?!)").search

    def split(self, text: str) -> Iterator[str | int]:
        """The parts of `text` in order: the ids of the strings found, the text between them."""
        start = at = 0
        while found := self._search(text, at):
            i = found.start()
            at = i + 1
            for n in self._lengths.get(text[i : i + 2]) or self._lengths.get(text[i], []):
                token = self._ids.get(text[i : i + n])
                if token is not None:
                    at = i + n
                    bounds = self._bounds(text, start, i, at, token)
                    if bounds:
                        if start < bounds[0]:
                            yield text[start : bounds[0]]
                        yield token
                        start = at = bounds[1]
                    break
        if start < len(text):
            yield text[start:]

    def _bounds(self, text: str, start: int, i: int, end: int, token: int) -> tuple[int, int] | None:
        """What text[i:end] takes of text[start:] as `token`; None if it is within a word."""
        flags = self._flags.get(token)
        if flags is None:
            return i, end
        if flags.single_word and (_is_word(text, end) or (i > 0 and _is_word(text, i - 1))):
            return None
        if flags.lstrip:
            i = start + len(text[start:i].rstrip(_WHITESPACE))
        if flags.rstrip:
            end = _skip_spaces(text, end).end()  # type: ignore[union-attr]
        return i, end
