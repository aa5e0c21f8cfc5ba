"""LLM.chat: the conversation's text, its tokens, and what becomes of wrong arguments."""

from __future__ import annotations

from typing import Any

import pytest
from ggufmodel import ModelFiles, Shape, metadata, write_model
from ggufwriter import write_gguf

from pyllama import LLM, ChatTemplateError, ContextLengthError, ModelLoadError, SamplingParams, Tokenizer

TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] }} {{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if tools %}{{ tools | length }}{% endif %}{{ mood }}{% if add_generation_prompt %}a {% endif %}"
)
USER = [{"role": "user", "content": "ab c"}]
OPTIONS: dict[str, Any] = {"temperature": 0, "max_tokens": 6, "ignore_eos": True}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return ModelFiles(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def llm(files: ModelFiles):
    with LLM(files(chat_template=TEMPLATE), n_threads=1) as llm:
        yield llm


def test_answers_what_the_template_writes(llm: LLM) -> None:
    out = llm.chat(USER, **OPTIONS)[0]
    assert out.prompt == "u ab c</s>a "
    assert out.prompt_token_ids == [1, *llm.tokenizer.encode("u ab c</s>a ", add_bos=False, special=True)]
    assert llm.tokenizer.eos_id in out.prompt_token_ids  # parsed, not spelled
    assert out.outputs == llm.generate([out.prompt_token_ids], **OPTIONS)[0].outputs
    assert out.outputs == llm.chat(USER, SamplingParams(**OPTIONS))[0].outputs


def test_stream_is_the_same(llm: LLM) -> None:
    out = llm.chat(USER, **OPTIONS)[0]
    stream = llm.chat_stream(USER, **OPTIONS)
    assert "".join(stream) == out.text
    assert stream.output.prompt == out.prompt and stream.output.outputs == out.outputs


def test_bos_comes_once(llm: LLM, files: ModelFiles) -> None:
    for begin in ("", "<s>", "{{ bos_token }}", "{{ bos_token }}<s>"):
        ids = llm.chat(USER, chat_template=begin + TEMPLATE, **OPTIONS)[0].prompt_token_ids
        assert ids.count(1) == max(1, begin.count("<s>") + begin.count("bos_token")) and ids[0] == 1
    with pytest.raises(ValueError, match="at least one token"):  # nothing but what the template writes
        path = files.folder / "nobos.gguf"
        write_model(path, Shape(chat_template="{{ mood }}"))
        tokenizer = Tokenizer.from_file(path)
        tokenizer._head = []  # as add_bos_token = false
        with LLM(path) as other:
            other.tokenizer = tokenizer
            other.chat(USER)


def test_many_conversations(llm: LLM) -> None:
    turns = [*USER, {"role": "assistant", "content": "d"}, {"role": "user", "content": "e"}]
    params = [SamplingParams(**OPTIONS), SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)]
    first, second = llm.chat([USER, turns], params)
    assert first.outputs == llm.chat(USER, **OPTIONS)[0].outputs
    assert second.prompt == "u ab c</s>a d</s>u e</s>a " and len(second.outputs[0].token_ids) == 2


def test_the_next_turn_is_cached(llm: LLM) -> None:
    messages = [{"role": "user", "content": "a b c d e f g h " * 5}]
    first = llm.chat(messages, **OPTIONS)[0]
    messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "e"}]
    second = llm.chat(messages, **OPTIONS)[0]
    assert second.prompt_token_ids[: len(first.prompt_token_ids)] == first.prompt_token_ids
    assert second.cached_tokens >= len(first.prompt_token_ids) // 32 * 32 > 0


def test_parts_are_joined(llm: LLM) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert llm.chat([{"role": "user", "content": parts}], **OPTIONS)[0].prompt == "u a\nb</s>a "


def test_template_arguments(llm: LLM) -> None:
    def prompt(**options: Any) -> str | None:
        return llm.chat([*USER, {"role": "assistant", "content": "x"}], **OPTIONS, **options)[0].prompt

    whole = "u ab c</s>a x</s>"
    assert prompt(add_generation_prompt=False) == whole
    assert prompt(add_generation_prompt=False, continue_final_message=True) == "u ab c</s>a x"
    assert prompt(tools=[{}, {}]) == f"{whole}2a "
    assert prompt(chat_template_kwargs={"mood": "!", "eos_token": "$"}) == "u ab c$a x$!a "
    assert prompt(chat_template="{{ messages[-1].content }}") == "x"


@pytest.mark.parametrize(
    ("messages", "options", "error", "words"),
    [
        ("hi", {}, TypeError, "messages: expected a list of messages, found 'hi'"),
        ([], {}, ValueError, "messages: expected at least one"),
        ([{"role": "user", "content": 5}], {}, TypeError, r"messages\[0\].content: expected a str"),
        ([USER, [{"role": "user"}]], {}, ValueError, r"messages\[1\]\[0\].content: expected a str"),
        ([USER, []], {}, ValueError, r"messages\[1\]: expected at least one"),
        ([USER, *USER], {}, TypeError, r"messages\[1\]: expected a list of messages"),
        (
            [{"role": "user", "content": [{"type": "image"}]}],
            {},
            ValueError,
            r"messages\[0\].content\[0\].type: expected 'text', found 'image'",
        ),
        (USER, {"chat_template": 5}, TypeError, "chat_template: expected a text, found 5"),
        (USER, {"chat_template": "{{"}, ChatTemplateError, "chat_template: line 1: unexpected"),
        (USER, {"chat_template": "{{ 1/0 }}"}, ChatTemplateError, "chat_template: line 1: ZeroDivisionError"),
        (USER, {"chat_template_kwargs": {"tools": []}}, ValueError, "chat_template_kwargs: .*found 'tools'"),
        (USER, {"chat_template_kwargs": {"messages": []}}, ValueError, "chat_template_kwargs: .*'messages'"),
        (USER, {"continue_final_message": True}, ValueError, "continue_final_message: .*found both"),
        (USER, {"nonsense": 1}, TypeError, "unknown sampling parameter 'nonsense'"),
        ([{"role": "user", "content": "a " * 600}], {}, ContextLengthError, "511 tokens"),
    ],
)
def test_bad_arguments(llm: LLM, messages: Any, options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        llm.chat(messages, **options)
    with pytest.raises(error):
        llm.chat_stream(messages, **options)


def test_a_stream_takes_one_conversation(llm: LLM) -> None:
    with pytest.raises(TypeError, match="messages: expected one conversation, found 2"):
        llm.chat_stream([USER, USER])


def test_no_template_says_what_to_do(files: ModelFiles) -> None:
    with LLM(files()) as llm:
        assert llm.tokenizer.chat_template is None
        with pytest.raises(ChatTemplateError, match=r"gguf: tokenizer.chat_template: .*found none: pass"):
            llm.chat(USER)
        assert llm.chat(USER, chat_template=TEMPLATE, **OPTIONS)[0].prompt == "u ab c</s>a "


def test_a_broken_template_names_the_file(files: ModelFiles) -> None:
    path = files(chat_template="\n{% if %}")
    with LLM(path) as llm, pytest.raises(ChatTemplateError) as raised:
        llm.chat(USER)
    assert str(raised.value).startswith(f"{path}: tokenizer.chat_template: line 2: ")


def test_what_the_tokenizer_tells(files: ModelFiles) -> None:
    path = files(chat_template=TEMPLATE)
    tokenizer = Tokenizer.from_file(path)
    assert tokenizer.chat_template == TEMPLATE
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    other = files.folder / "number.gguf"
    write_gguf(other, [*metadata(Shape()), ("tokenizer.chat_template", "u32", 5)], [])
    with pytest.raises(ModelLoadError, match=r"tokenizer.chat_template: expected a str, found 5"):
        Tokenizer.from_file(other)
