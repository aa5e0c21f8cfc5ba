"""Chat templates: transformers' texts, errors that name the place, and an end of everything."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clirun import ENV
from mutate_template import OTHER, REFUSED, RENDERED, attempt, mutate
from published import SHARED, needs_shared

from pyllama import ChatTemplate, ChatTemplateError, PyllamaError, template_limits

TEMPLATES = SHARED / "templates"
USER = [{"role": "user", "content": "Hello, <b>world</b>! \u4e16\u754c"}]
TURNS = [*USER, {"role": "assistant", "content": "Hi. "}, {"role": "user", "content": "Bye"}]
CHATML = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def text_of(template: str, messages: Any = USER, **options: Any) -> str:
    return ChatTemplate(template, "t.jinja").render(messages, **options)


# ---- as transformers


def golden() -> Iterator[Any]:
    if not SHARED.is_dir():
        yield None, None, None
        return
    data = json.loads((TEMPLATES / "golden.json").read_text(encoding="utf-8"))
    for name, facts in data["templates"].items():
        for case in facts["cases"]:
            yield pytest.param(data, name, case, id=f"{name}-{case}")


@needs_shared
@pytest.mark.parametrize(("data", "name", "case"), list(golden()))
def test_golden(data: Any, name: str, case: str) -> None:
    facts, now = data["templates"][name], datetime.datetime.fromisoformat(data["now"])
    template = ChatTemplate((TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8"), name)

    def render() -> str:
        return template.render(
            data["conversations"][case],
            tools=data["tools"] if case == "tools" else None,
            add_generation_prompt=data["add_generation_prompt"],
            bos_token=facts["bos_token"],
            eos_token=facts["eos_token"],
            strftime_now=now.strftime,
        )

    expected = facts["cases"][case]
    if "text" in expected:
        assert render() == expected["text"] == render()
        return
    kind, _, message = expected["error"].partition(": ")
    with pytest.raises(ChatTemplateError) as raised:
        render()
    assert kind == "TemplateError" and str(raised.value) == f"{name}: line 1: {message}"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("  {% if true %}\n a\n  {% endif %}\nb", " a\nb"),  # trimmed and left-stripped blocks
        ("{{ {'b': '<\u4e16>', 'a': [1, none]} | tojson }}", '{"b": "<\u4e16>", "a": [1, null]}'),
        ("{{ {2: 1, 1: '\u4e16'} | tojson(ensure_ascii=true, sort_keys=true) }}", '{"1": "\\u4e16", "2": 1}'),
        ("{{ [1, {}] | tojson(indent=2) }}", "[\n  1,\n  {}\n]"),
        ("{{ [1, 2] | tojson(separators=(',', ':')) }}", "[1,2]"),
        ("{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i == 3 %}{% break %}{% endif %}"
         "{{ i }}{{ loop.length }}{{ loop.last }}{% endfor %}", "09False29False"),
        ("{% generation %}{% set x = 1 %}a{% endgeneration %}{{ x is defined }}", "aFalse"),
        ("{% set s = namespace(n=1) %}{% for m in 'ab' %}{% set s.n = s.n + 1 %}{% endfor %}{{ s.n }}", "3"),
        ("{{ messages[0].content[1:4] ~ 1 ~ none ~ nothing }}", "ell1None"),
        ("{{ 'a' * 3 + '%s-%d' % ('b', 2) + '{0}{x:>3}'.format(1, x=2) + ', '.join(['c', 'd']) }}",
         "aaab-21  2c, d"),
        ("{{ ('x' * 1000000) | length }}", "1000000"),
        ("{{ [3, 1, 2] | sort | join('|') ~ ([1, 2] | sum) ~ ('a b' | title) ~ ('b' | center(3)) }}",
         "1|2|33A B b "),
        ("{{ messages | map(attribute='role') | list }}", "['user']"),
        ("{{ (messages | selectattr('role', 'equalto', 'user') | first).content }}", USER[0]["content"]),
        ("{% macro m(x, y=2) %}[{{ x }}{{ y }}{{ caller() if caller }}]{% endmacro %}{{ m(1) }}"
         "{% call m(3) %}!{% endcall %}", "[12][32!]"),
        ("{{ tools is none }}{{ documents }}{{ bos_token is defined }}{{ thinking }}", "TrueNoneFalseno"),
        ("{{ {'a': (1, 2)}.items() | list }}{{ -5 // 2 }}{{ 2 ** 10 }}{{ 7 % 4 }}", "[('a', (1, 2))]-310243"),
        ("{% autoescape true %}{{ '<' }}{{ '<' ~ '>' }}{% endautoescape %}{{ '<' }}", "&lt;&lt;&gt;<"),
    ],
)  # fmt: skip
def test_language(template: str, expected: str) -> None:
    assert text_of(template, thinking="no") == expected


def test_the_time_is_now() -> None:
    before = datetime.datetime.now().strftime("%Y")
    assert before <= text_of("{{ strftime_now('%Y') }}") <= datetime.datetime.now().strftime("%Y")


def test_many_threads_one_template() -> None:
    template, found = ChatTemplate(CHATML), dict[int, str]()

    def work(i: int) -> None:
        for _ in range(50):
            found[i] = template.render([{"role": "user", "content": str(i) * 100}])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: f"<|user|>{str(i) * 100}</s>\n<|assistant|>" for i in range(8)}


def test_render_changes_no_message() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    before = json.dumps(messages)
    text_of(
        "{{ messages[0].content[0].text }}",
        messages,
        add_generation_prompt=False,
        continue_final_message=True,
    )
    assert json.dumps(messages) == before


# ---- the last message goes on


@pytest.mark.parametrize(
    ("template", "content", "expected"),
    [
        (CHATML, "Once upon ", "<|user|>Once upon "),
        ("{% for m in messages %}{{ m.content | trim }}</s>{% endfor %}", " Once upon ", "Once upon"),
        ("{% for m in messages %}{{ m.content }} | {{ m.content }}</s>{% endfor %}", "a", "a | a"),
        (
            "{% for p in messages[0].content %}{{ p.text }}{% endfor %}</s>",
            [{"type": "text", "text": "b"}],
            "b",
        ),
    ],
)
def test_continue_final_message(template: str, content: Any, expected: str) -> None:
    messages = [{"role": "user", "content": content}]
    found = text_of(template, messages, add_generation_prompt=False, continue_final_message=True)
    assert found == expected


def test_continue_final_message_says_why_not() -> None:
    options = {"add_generation_prompt": False, "continue_final_message": True}
    with pytest.raises(ChatTemplateError, match="expected the last message in the text"):
        text_of("{{ messages[0].role }}", **options)
    with pytest.raises(ValueError, match=r"messages\[0\].content: expected a text to continue, found None"):
        text_of(CHATML, [{"role": "user", "content": None}], **options)
    with pytest.raises(ValueError, match="found both"):
        text_of(CHATML, continue_final_message=True)


# ---- arguments


@pytest.mark.parametrize(
    ("messages", "error", "words"),
    [
        ("hello", TypeError, "messages: expected a list of messages, found 'hello'"),
        ({"role": "user"}, TypeError, "messages: expected a list"),
        (iter([]), TypeError, "messages: expected a list"),
        ([], ValueError, "messages: expected at least one, found none"),
        (["hello"], TypeError, r"messages\[0\]: expected a dict with role and content, found 'hello'"),
        ([{"content": "a"}], ValueError, r"messages\[0\].role: expected a str, found no such key"),
        ([*TURNS, {"role": 1, "content": "a"}], TypeError, r"messages\[3\].role: expected a str, found 1"),
        (
            [{"role": "user"}],
            ValueError,
            r"messages\[0\].content: expected a str, None or a list of parts, found no",
        ),
        ([{"role": "user", "content": 5}], TypeError, r"messages\[0\].content: expected a str, .* found 5"),
        (
            [{"role": "user", "content": ["a"]}],
            TypeError,
            r"messages\[0\].content\[0\]: expected a dict with type",
        ),
        (
            [{"role": "user", "content": [{}]}],
            ValueError,
            r"messages\[0\].content\[0\].type: expected a str, found no",
        ),
        ([{"role": "user", "content": [{"type": "text"}]}], ValueError, r"content\[0\].text: expected a str"),
    ],
)
def test_bad_messages(messages: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as raised:
        text_of("a", messages)
    assert not isinstance(raised.value, PyllamaError)


def test_allowed_messages() -> None:
    messages = (
        {"role": "assistant", "tool_calls": [], "name": "x"},
        {"role": "tool", "content": None},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]},
    )
    assert text_of("{{ messages | length }}", messages) == "3"


def test_bad_tools_and_templates() -> None:
    with pytest.raises(TypeError, match=r"tools\[1\]: expected a dict, found <function"):
        text_of("a", tools=[{}, text_of])
    with pytest.raises(TypeError, match="documents: expected a list of dicts or None, found 'x'"):
        text_of("a", documents="x")
    with pytest.raises(TypeError, match="expected a text, found None"):
        ChatTemplate(None, "m.gguf")  # type: ignore[arg-type]
    with pytest.raises(ChatTemplateError, match=r"t.jinja: expected at most \d+ characters, found 300000"):
        text_of("a" * 300_000)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("a\nb {% if x %}", "line 2: Unexpected end of template"),
        ("\n\n{{ }", "line 3: unexpected '}'"),
        ("{% break %}", "'break' outside loop"),
        ("{{ x | nonsense }}", "line 1: No filter named 'nonsense'"),
        ("\n{{ messages[5].content }}", "line 2: list object has no element 5"),
        ("{{ 1 +\n 'a' }}", "line 1: TypeError: unsupported operand"),
        ("{% for m in messages %}\n{{ raise_exception('No ' + m.role) }}{% endfor %}", "line 2: No user"),
        ("{{ raise_exception('x' * 100000) }}", "line 1: " + "x" * 2000),
        ("{% include 'a' %}", "line 1: TypeError: no loader"),
        ("{{ {1: 2} | tojson(sort_keys=true) }}{{ nothing | tojson }}", "not JSON serializable"),
    ],
)
def test_errors_name_the_line(template: str, words: str) -> None:
    with pytest.raises(ChatTemplateError) as raised:
        text_of(template)
    assert str(raised.value).startswith("t.jinja: ") and words in str(raised.value)
    assert len(str(raised.value)) < 2100


# ---- no way out, and an end

DOUBLING = (
    "{% set ns = namespace(x=START, y=START) %}{% for i in range(99) %}{% set ns.x = STEP %}{% endfor %}"
)


def doubling(start: str, step: str, use: str) -> str:
    return DOUBLING.replace("START", start).replace("STEP", step) + use


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ (''|attr('__class__')).mro() }}",
        "{{ '{0.__class__.__mro__}'.format('') }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(content='x') }}",
        "{{ messages.__len__() }}",
        "{{ (messages | map('attr', '__class__') | first).mro() }}",
        "{{ self.__init__.__globals__ }}",
        "{{ raise_exception.__globals__.x }}",
    ],
)
def test_no_way_out(template: str) -> None:
    with pytest.raises(ChatTemplateError, match=r"unsafe|undefined|has no attribute"):
        text_of(template)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "takes more than"),
        ("{% for i in range(99999) %}{% for j in range(99999) if false %}{% endfor %}{% endfor %}", "takes"),
        ("{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}", "takes"),
        ("{% for x in [1,2] recursive %}{{ loop([1,2]) if loop.depth < 60 }}{% endfor %}", "takes more than"),
        ("{% set b = range(90000)|list %}{{ range(90000)|reject('in', b)|list }}", "takes more than"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nested too deeply"),
        ("{% block a %}{{ self.a() }}{% endblock %}", "nested too deeply"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "nested too deeply"),
        ("{{ a }}" * 10_000, "has more than 20000 tokens"),
        ("{{ [[1]]*400000 | sum(start=[]) }}", "adds up from a list"),
        ("{{ ('a'*16000000).rfind('b' + 'a'*8000000) }}", "makes a value of more than"),
        ("{{ ('\u00e9'*1000000).encode('punycode') }}", "asks for an encoding"),
        ("{{ ('a@'*1000000) | urlize }}", "to a slow filter"),
        ("{{ range(9) | map(attribute='a.' * 1000000) | list }}", "path of 2000000 characters"),
        ("{{ lipsum(n=1000000) }}", "'lipsum' is undefined"),
    ],
)  # fmt: skip
def test_every_render_ends(template: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limits, "MAX_SECONDS", 0.3)
    with pytest.raises(ChatTemplateError, match=words):
        text_of(template)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ 'a' * 10**10 }}", "makes a value of more than"),
        ("{{ 10**1000**10 }}", "makes an integer of"),
        (doubling("3", "ns.x * ns.x", ""), "makes an integer of"),
        ("{{ ('f' * 100000) | int(base=16) }}", "makes an integer of"),
        ("{{ 5 | round(-10**9) }}", "rounds to"),
        (doubling("'ab'", "ns.x ~ ns.x", ""), "makes a value of more than"),
        (doubling("'ab'", "ns.x + ns.x", ""), "makes a value of more than"),
        (doubling("[1]", "[ns.x, ns.x]", "{{ ns.x }}"), "makes a value of more than"),
        (doubling("(1, 2)", "(ns.x, ns.x)", "{{ {ns.x: 1} }}"), "makes a value of more than"),
        (doubling("{}", "{'a': ns.x, 'b': ns.x}", "{{ ns.x | tojson }}"), "makes a value of more than"),
        (doubling("{}", "dict(a=ns.x.items(), b=ns.x.values())", "{{ ns.x }}"), "makes a value of"),
        (doubling("'a'", "['%s%s' % (ns.x, ns.x)] | join", ""), "makes a value of more than"),
        ("{{ 'a' | center(10**9) }}", "makes a value of more than"),
        ("{% filter center(1000000000) %}a{% endfilter %}", "makes a value of more than"),
        ("{% autoescape 'a' | center(1000000000) %}{% endautoescape %}", "makes a value of more than"),
        ("{{ 'a\nb' | indent(10**9) }}{{ 'a' }}", "makes a value of more than"),
        ("{{ 'a'.ljust(10**9) }}", "makes a value of more than"),
        ("{{ 'a'.encode().zfill(10**9) }}", "makes a value of more than"),
        ("{{ ('\t'*100000).expandtabs(100000) }}", "makes a value of more than"),
        ("{{ ('a'*1000000).replace('', 'b'*1000000) }}", "makes a value of more than"),
        ("{{ ('a'*1000000) | replace('a', 'b'*1000000) }}", "makes a value of more than"),
        ("{{ ('a'*1000000).join('b'*1000000) }}", "makes a value of more than"),
        ("{{ range(99999) | map('string') | join('a'*1000000) }}", "makes a value of more than"),
        ("{{ ('a'*1000000).translate({97: 'b'*1000000}) }}", "makes a value of more than"),
        ("{{ (5).to_bytes(10**9, 'big') }}", "makes a value of more than"),
        ("{{ [1] | batch(10**9, 'x') | list }}", "makes a value of more than"),
        ("{{ 'x' | tojson(indent=10**9) }}", "indents by more than"),
        ("{{ '%1000000000d' | format(1) }}", "formats with a number above"),
        ("{{ '%1000000000d' % 1 }}", "formats with a number above"),
        ("{{ '%*d' % (1000000000, 1) }}", "formats with '\\*'"),
        ("{{ '{:1000000000}'.format(1) }}", "formats with a number above"),
        ("{{ '{:{w}}'.format(1, w=1000000000) }}", "formats with a field inside a field"),
        ("{{ ('{0}' * 100000).format('x' * 100000) }}", "makes a value of more than"),
        ("{{ strftime_now('%Y' * 1000000) }}", "formats the time by"),
        ("{% for a in range(99999) %}{{ 'x' * 1000000 }}{% endfor %}", "writes more than"),
        ("{% set x %}{% for a in range(99) %}{{ 'x' * 1000000 }}{% endfor %}{% endset %}", "a value of"),
        ("{% set s = 'x' * 30000000 %}{% for i in range(9) %}{% set a = s[1:] %}{% endfor %}", "in all"),
        ("{% for i in range(999) %}{% set c = cycler(*range(99999)) %}{% endfor %}", "bytes in all"),
    ],
)  # fmt: skip
def test_every_value_is_bounded(template: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limits, "MAX_SECONDS", 60.0)
    with pytest.raises(ChatTemplateError, match=words):
        text_of(template)


def test_limits_are_those_of_one_render() -> None:
    template = ChatTemplate("{% for i in range(n) %}{% set x = 'a' * 30000000 %}{% endfor %}{{ i }}b")
    for _ in range(5):
        assert template.render(USER, n=5) == "b"
        with pytest.raises(ChatTemplateError, match="bytes in all"):
            template.render(USER, n=15)


def test_a_busy_machine_costs_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is on the time that the thread computes, not on the time that passes."""
    monkeypatch.setattr(template_limits, "MAX_SECONDS", 0.05)
    pause = threading.Event().wait
    assert text_of("{{ pause(0.1) }}{% for i in range(3) %}{{ i }}{% endfor %}", pause=pause) == "False012"


# ---- nonsense


def sources() -> list[list[str]]:
    """Templates to mutate: ours, and the published ones where they are at hand."""
    published = [f.read_text(encoding="utf-8") for f in sorted(TEMPLATES.glob("*.jinja"))]
    return [[CHATML], published] if published else [[CHATML]]


@pytest.mark.parametrize("texts", sources(), ids=len)
def test_mutations_are_rendered_or_refused(texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limits, "MAX_SECONDS", 0.05)
    counts = Counter[str]()
    for i in range(400):  # of a template as short as ours few are rendered
        text = mutate(texts, 1, i)
        outcome, message = attempt(text)
        assert outcome != OTHER, f"seed 1 mutation {i}:\n{text}\n{message}"
        counts[outcome] += 1
    assert counts[RENDERED] > 30 and counts[REFUSED] > 100


def test_mutations_by_command_line(tmp_path: Path) -> None:
    file = tmp_path / "t.jinja"
    file.write_text(CHATML)
    command = [sys.executable, str(Path(__file__).parent / "mutate_template.py"), str(file), "-n", "20"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENV, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 mutations of seed 1" in done.stdout and "0 other exception" in done.stdout


def test_jinja_is_imported_late() -> None:
    code = "import sys, pyllama, pyllama.chat_template; print('jinja2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENV, check=True)
    assert done.stdout == "False\n"
