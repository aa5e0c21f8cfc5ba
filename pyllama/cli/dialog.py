"""The turns of a conversation, and what of it fits the context. Nothing here knows of terminals."""

from __future__ import annotations

import bisect
import dataclasses
import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyllama._core import KV_BLOCK
from pyllama.chat import render_chat
from pyllama.chat_template import ChatTemplate, check_messages
from pyllama.errors import ContextLengthError

if TYPE_CHECKING:
    from pyllama.llm import LLM, Stream
    from pyllama.sampling import SamplingParams

Message = dict[str, Any]
MAX_FILE = 64 << 20  # bytes of a conversation
ANSWER_ROOM = 256  # tokens that are kept free for an answer, or a quarter of the context if that is less


@dataclasses.dataclass
class Turn:
    """An answer on its way: `messages` are those it answers, without the `dropped` that did not fit."""

    stream: Stream
    messages: list[Message]
    dropped: int


class Dialog:
    """A conversation with a model."""

    def __init__(self, llm: LLM, template: ChatTemplate, params: SamplingParams, system: str | None) -> None:
        self.llm, self.template, self.params = llm, template, params
        self.messages: list[Message] = []
        self.n_asked = 0  # since the last reset; the messages may have lost turns that did not fit
        if system is not None:
            self.system = system
        self.n_ctx = min(llm.n_ctx, llm.model.kv_plan.n_blocks * KV_BLOCK)

    @property
    def system(self) -> str | None:
        """The system message: it stays when the rest is forgotten."""
        head = self.messages[:1]
        return head[0]["content"] if head and head[0]["role"] == "system" else None

    @system.setter
    def system(self, text: str) -> None:
        self.messages[: self.system is not None] = [{"role": "system", "content": text}]

    def reset(self) -> None:
        """Forgets all but the system message."""
        self.n_asked = 0
        del self.messages[self.system is not None :]

    def undo(self) -> bool:
        """Forgets the last question and what came after it; False if there is none."""
        asked = [i for i, message in enumerate(self.messages) if message["role"] == "user"]
        del self.messages[asked[-1] if asked else len(self.messages) :]
        return bool(asked)

    def ask(self, text: str) -> Turn:
        """The beginning of the answer to `text`. The conversation changes when it is kept.

        The n-th answer is drawn with seed + n - 1. The oldest turns are left out as long as there is too
        little room. Raises ContextLengthError
        if the message alone is too long, ChatTemplateError, ValueError for a text that is none.
        """
        messages, ids = self._fitting([*self.messages, {"role": "user", "content": text}])
        left = self.n_ctx - len(ids)
        if left < 1:
            raise ContextLengthError(
                f"the message does not fit: expected at most {self.n_ctx - 1} tokens with all that belongs "
                f"to it, found {len(ids)}"
            )
        seed = self.params.seed
        if seed is not None:  # else two stories of one conversation begin alike
            seed = (seed + self.n_asked) % 2**64
        params = dataclasses.replace(
            self.params, max_tokens=min(self.params.max_tokens or left, left), seed=seed
        )
        self.n_asked += 1
        return Turn(self.llm.stream(ids, params), messages, len(self.messages) + 1 - len(messages))

    def keep(self, turn: Turn) -> bool:
        """Takes question and answer into the conversation; False if nothing was answered."""
        answer = turn.stream.output.text
        if answer:
            self.messages = [*turn.messages, {"role": "assistant", "content": answer}]
        return bool(answer)

    def _fitting(self, messages: list[Message]) -> tuple[list[Message], list[int]]:
        """As many of the last turns as leave room for an answer, one at least; and their token ids."""
        room = min(self.params.max_tokens or ANSWER_ROOM, ANSWER_ROOM, self.n_ctx // 4)
        head = int(messages[0]["role"] == "system")
        starts = [i for i, m in enumerate(messages) if i == head or (i > head and m["role"] == "user")]
        ids: dict[int, list[int]] = {}

        def fits(start: int) -> bool:
            ids[start] = self._ids(messages[:head] + messages[start:])
            return len(ids[start]) + room <= self.n_ctx

        start, last = head, len(starts) - 1
        if not fits(head) and last > 0:
            start = starts[bisect.bisect_left(starts, True, 1, last, key=fits)]
            fits(start)  # or not: it is as short as can be
        return messages[:head] + messages[start:], ids[start]

    def _ids(self, messages: list[Message]) -> list[int]:
        ((_, ids),) = render_chat(self.llm.tokenizer, self.template, messages, add_generation_prompt=True)
        return ids

    # ---- files

    def save(self, path: str) -> None:
        """Writes the messages as JSON. Raises OSError; FileExistsError for a file that holds none."""
        file = Path(path).expanduser()
        if file.exists():
            try:
                read_messages(file)
            except (OSError, ValueError):
                raise FileExistsError(17, "File exists, and is no conversation", path) from None
        file.write_text(json.dumps(self.messages, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    def load(self, path: str) -> None:
        """Takes the messages of a file instead of these. Raises OSError, ValueError."""
        self.messages = read_messages(Path(path).expanduser())


def read_messages(file: Path) -> list[Message]:
    """The messages in a JSON file. Raises OSError; ValueError naming what is wrong."""
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):  # a FIFO would wait, /dev/zero never end
        raise ValueError(f"{file}: expected a regular file, found {stat.filemode(status.st_mode)}")
    if status.st_size > MAX_FILE:
        raise ValueError(f"{file}: expected at most {MAX_FILE} bytes, found {status.st_size}")
    try:
        messages = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: expected JSON, found {error}") from None
    try:
        check_messages(messages)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from None
    return [dict(message) for message in messages]
