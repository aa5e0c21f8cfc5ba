"""Stream: a request's text as it comes."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .request import Request, RequestOutput, result

if TYPE_CHECKING:
    from .llm import LLM


class Stream:
    """Pieces of text as they come. `cancel()` may be called from any thread; a stream that is no
    longer iterated is cancelled when it goes away. After the last piece `.output` is the result."""

    def __init__(self, llm: LLM, request: Request) -> None:
        self._llm = llm  # a stream keeps its model open
        self._engine, self._request = llm._engine, request
        self._finalizer = weakref.finalize(self, self._engine.cancel, [request])
        self._finalizer.atexit = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        pieces = self._request.pieces
        if pieces is None:
            raise StopIteration
        piece = pieces.get()
        if piece is None:
            pieces.put(None)  # for another thread that waits here
            self._request.pieces = None
            if self._request.error is not None and not self._request.cancelled:
                raise self._request.error
            raise StopIteration
        return piece

    def cancel(self) -> None:
        """Ends the request; the iteration stops after the pieces already made."""
        self._engine.cancel([self._request])

    @property
    def output(self) -> RequestOutput:
        """The result; `finished` tells whether it is complete."""
        return result([self._request])

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()
