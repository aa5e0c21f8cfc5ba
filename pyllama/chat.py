"""From a conversation to the tokens that a model continues: its template, its tokenizer, BOS once."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from .chat_template import ChatTemplate, Message, check_messages
from .errors import ChatTemplateError
from .tokenizer import Tokenizer

Conversation = Sequence[Message]

_compiled = functools.lru_cache(maxsize=16)(ChatTemplate)


def template_of(tokenizer: Tokenizer, path: str, chat_template: str | None = None) -> ChatTemplate:
    """The template given, or that of the model `path`. Raises ChatTemplateError if there is none."""
    if chat_template is not None:
        if not isinstance(chat_template, str):
            raise TypeError(f"chat_template: expected a text, found {chat_template!r:.80}")
        return _compiled(chat_template, "chat_template")
    if tokenizer.chat_template is None:
        raise ChatTemplateError(
            f"{path}: tokenizer.chat_template: expected a chat template, found none: "
            "pass the text of one as chat_template"
        )
    return _compiled(tokenizer.chat_template, f"{path}: tokenizer.chat_template")


def render_chat(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    messages: Conversation | Sequence[Conversation],
    variables: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> list[tuple[str, list[int]]]:
    """Text and token ids of a conversation, or of each of several; the contents' parts are joined.

    Special tokens in the text are parsed, and BOS comes once. arguments: those of
    ChatTemplate.render. variables: what else the template reads.
    Raises TypeError or ValueError naming `messages[i].content` or `messages[c][i].content`.
    """
    if isinstance(messages, (list, tuple)) and messages and isinstance(messages[0], (list, tuple)):
        conversations = [_checked(m, f"messages[{c}]") for c, m in enumerate(messages)]
    else:
        conversations = [_checked(messages, "messages")]
    named = dict(variables or {})
    if taken := [name for name in named if name == "messages" or name in arguments]:
        raise ValueError(f"chat_template_kwargs: expected no argument of chat(), found {taken[0]!r}")
    named = {"bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token, **arguments, **named}
    texts = [template.render(conversation, **named) for conversation in conversations]
    return [(text, _encode(tokenizer, text)) for text in texts]


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    ids = tokenizer.encode(text, add_bos=False, special=True)
    bos = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
    return ids if ids[:1] == bos else bos + ids


def _checked(messages: Any, name: str) -> list[Message]:
    check_messages(messages, name)
    return [_flat(message, f"{name}[{i}]") for i, message in enumerate(messages)]


def _flat(message: Message, name: str) -> Message:
    """Parts of text are joined by newlines: most templates take a text alone."""
    parts = message.get("content")
    if not isinstance(parts, (list, tuple)):
        return message
    for j, part in enumerate(parts):
        if part["type"] != "text":
            raise ValueError(f"{name}.content[{j}].type: expected 'text', found {part['type']!r:.80}")
    return {**message, "content": "\n".join(part["text"] for part in parts)}
