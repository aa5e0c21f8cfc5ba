"""Chat templates: messages -> the text that a model was trained to continue.

A template is Jinja2 as transformers renders it (transformers, chat_template_utils): in an immutable
sandbox, with trimmed blocks, loop controls, `tojson`, `raise_exception` and `strftime_now`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import ChatTemplateError

MAX_TEMPLATE = 256 << 10  # characters; those of real models have some thousands
MAX_MESSAGE = 2000  # characters of an error that a template words itself

# Marks where the last message ends. The space is rare: that it is gone tells that the template
# trims messages, and that the message's own trailing space went with it.
_END = "\N{LEFT WHITE SQUARE BRACKET}the message ends here\N{RIGHT WHITE SQUARE BRACKET}\N{HAIR SPACE}"

Message = Mapping[str, Any]


class ChatTemplate:
    """A compiled template; any thread may render it.

    text: Jinja2. source: what errors call it, such as the file and the key that it is from.
    Raises ChatTemplateError naming source and line if it is no template, or too large.
    """

    def __init__(self, text: str, source: str = "chat template") -> None:
        if not isinstance(text, str):
            raise TypeError(f"{source}: expected a text, found {text!r:.80}")
        if len(text) > MAX_TEMPLATE:
            raise ChatTemplateError(
                f"{source}: expected at most {MAX_TEMPLATE} characters, found {len(text)}"
            )
        from .template_limits import within_limits
        from .template_sandbox import environment

        self.source = source
        try:
            self._template = within_limits(lambda: environment().compile_text(text))
        except Exception as error:
            raise self._error(error) from error

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        *,
        bos_token: str | None = None,
        eos_token: str | None = None,
        **variables: Any,
    ) -> str:
        """The text of a conversation.

        tools: JSON schemas of functions. add_generation_prompt: the text ends where the model's
        answer begins. continue_final_message: it ends within the last message, for the model to go
        on. bos_token, eos_token: the tokens' spellings. variables: others that the template reads.

        Raises TypeError and ValueError for arguments, naming `messages[i].content` and the like;
        ChatTemplateError with the template's own words if it refuses them, or fails, or takes more
        time or memory than `pyllama.template_limits` gives it.
        """
        check_messages(messages)
        _check_list("tools", tools)
        _check_list("documents", documents)
        if continue_final_message:
            if add_generation_prompt:
                what = "expected not both add_generation_prompt and continue_final_message"
                raise ValueError(f"continue_final_message: {what}, found both")
            messages = _marked(messages)
        variables |= {"messages": list(messages), "tools": tools, "documents": documents}
        variables["add_generation_prompt"] = add_generation_prompt
        for name, token in (("bos_token", bos_token), ("eos_token", eos_token)):
            if token is not None:
                variables[name] = token
        from .template_limits import within_limits
        from .template_sandbox import render

        try:
            text = within_limits(lambda: render(self._template, variables))
        except Exception as error:
            raise self._error(error) from error
        return self._cut(text) if continue_final_message else text

    def _cut(self, text: str) -> str:
        """The text up to the mark of _marked()."""
        mark = _END.strip()
        head, found, tail = text.rpartition(mark)
        if not found:
            raise ChatTemplateError(
                f"{self.source}: expected the last message in the text, to continue it, found it not"
            )
        head = head if tail.startswith(_END[-1]) else head.rstrip()
        return head.replace(_END, "").replace(mark, "")  # of a template that writes messages twice

    def _error(self, error: Exception) -> ChatTemplateError:
        """The error of ours for one of jinja2, of the template, or of a limit."""
        from jinja2 import TemplateError, TemplateSyntaxError

        from .template_limits import LimitError

        if isinstance(error, (TemplateError, LimitError)):
            what = str(getattr(error, "message", None) or error)
        elif isinstance(error, SyntaxError):  # of the Python that jinja2 makes of it
            what = error.msg
        elif isinstance(error, RecursionError):
            what = "nested too deeply"
        elif isinstance(error, MemoryError):
            what = "needs more memory than there is"
        else:
            what = f"{type(error).__name__}: {error}"
        line = error.lineno if isinstance(error, TemplateSyntaxError) else _line(error)
        where = f"{self.source}: line {line}" if line else self.source
        return ChatTemplateError(f"{where}: {what[:MAX_MESSAGE]}")


def check_messages(messages: object, name: str = "messages") -> None:
    """Raises TypeError or ValueError that says where in the conversation `name` something is wrong.

    It is a list of mappings with `role`, a text, and `content`: a text, None, or a list of parts,
    mappings with `type`. Content may be missing beside `tool_calls`. Other keys are the template's.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise TypeError(f"{name}: expected a list of messages, found {messages!r:.80}")
    if not messages:
        raise ValueError(f"{name}: expected at least one, found none")
    for i, message in enumerate(messages):
        where = f"{name}[{i}]"
        if not isinstance(message, Mapping):
            raise TypeError(f"{where}: expected a dict with role and content, found {message!r:.80}")
        _check_key(f"{where}.role", message, "role", str)
        if "content" in message or "tool_calls" not in message:
            _check_content(f"{where}.content", message)


def _check_content(where: str, message: Message) -> None:
    content = message.get("content")
    if isinstance(content, (list, tuple)):
        for j, part in enumerate(content):
            if not isinstance(part, Mapping):
                raise TypeError(f"{where}[{j}]: expected a dict with type, found {part!r:.80}")
            _check_key(f"{where}[{j}].type", part, "type", str)
            if part["type"] == "text":
                _check_key(f"{where}[{j}].text", part, "text", str)
    elif "content" not in message:
        raise ValueError(f"{where}: expected a str, None or a list of parts, found no such key")
    elif content is not None and not isinstance(content, str):
        raise TypeError(f"{where}: expected a str, None or a list of parts, found {content!r:.80}")


def _check_key(where: str, mapping: Message, key: str, kind: type) -> None:
    if key not in mapping:
        raise ValueError(f"{where}: expected a {kind.__name__}, found no such key")
    if not isinstance(mapping[key], kind):
        raise TypeError(f"{where}: expected a {kind.__name__}, found {mapping[key]!r:.80}")


def _check_list(name: str, items: object) -> None:
    if items is None:
        return
    if not isinstance(items, (list, tuple)):
        raise TypeError(f"{name}: expected a list of dicts or None, found {items!r:.80}")
    for i, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise TypeError(f"{name}[{i}]: expected a dict, found {item!r:.80}")


def _marked(messages: Sequence[Message]) -> list[Message]:
    """The messages, with _END after the last one's text."""
    *before, last = messages
    content = last.get("content")
    where = f"messages[{len(before)}].content"
    if isinstance(content, str):
        return [*before, {**last, "content": content + _END}]
    parts = list(content or ())
    for i in reversed(range(len(parts))):
        if parts[i]["type"] == "text":
            parts[i] = {**parts[i], "text": parts[i]["text"] + _END}
            return [*before, {**last, "content": parts}]
    raise ValueError(f"{where}: expected a text to continue, found {content!r:.80}")


def _line(error: BaseException) -> int | None:
    """The template's line in which an error was raised; jinja2 puts it into the traceback."""
    line, traceback = None, error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == "<template>":
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
