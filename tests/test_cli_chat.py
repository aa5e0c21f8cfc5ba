"""`pyllama chat` as users meet it: a pseudo-terminal with keys pressed, and pipes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clirun import COMMAND, ENV, modules_after, run
from ggufmodel import ModelFiles
from terminal import CTRL_C, STATS, TAB, UP, Terminal

from pyllama import LLM, ContextLengthError, SamplingParams
from pyllama.chat import template_of
from pyllama.cli.chat import PICTURES
from pyllama.cli.dialog import Dialog
from pyllama.cli.tinymodel import write_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny_model(path)
    return path


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that could answer for minutes."""
    path = tmp_path_factory.mktemp("model") / "endless.gguf"
    write_tiny_model(path, n_ctx=200_000)
    return path


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Any]:
    opened: list[Terminal] = []

    def open_terminal(*args: str | Path, state: Path = tmp_path / "state") -> Terminal:
        opened.append(Terminal(state, *args))
        opened[-1].expect("tokens. /help tells more.\n> ")
        return opened[-1]

    yield open_terminal
    for t in opened:
        t.close()


# ---- a terminal


def test_ten_turns(terminal: Any, endless: Path, tmp_path: Path) -> None:
    t, file = terminal("-m", endless, "-n", "20", "-sys", "be brief"), tmp_path / "chat.json"
    before = 0
    for i in range(10):
        found = t.say(f"message number {i} to you")
        n_prompt, cached, made, context, n_ctx = (int(found[k]) for k in (1, 2, 3, 5, 6))
        assert (made, context, n_ctx) == (20, n_prompt + 20, 200_000) and n_prompt > before
        assert cached % 32 == 0 and (i == 0 or cached >= before // 32 * 32 - 32)
        before = n_prompt
    t.say(f"/save {file}", "21 messages saved")
    messages = json.loads(file.read_text(encoding="utf-8"))
    assert messages[0] == {"role": "system", "content": "be brief"}
    assert [m["role"] for m in messages[1:]] == ["user", "assistant"] * 10
    assert messages[19]["content"] == "message number 9 to you"
    shown = t.end()
    assert all(m["content"].splitlines()[0][:40] in shown for m in messages[1:])


def test_ctrl_c_stops_the_answer_alone(terminal: Any, endless: Path, tmp_path: Path) -> None:
    t, file = terminal("-m", endless, "--temp", "0"), tmp_path / "chat.json"
    for question in ("first", "second"):
        t.press(question + "\n")
        t.expect(rf"{question}\n *\w+ \w+ \w+ ")  # the answer has begun
        t.press(CTRL_C)
        t.expect(STATS[:-2] + r" \| stopped\]")
        t.expect("^> ")
    t.say(f"/save {file}", "4 messages saved")
    messages = json.loads(file.read_text(encoding="utf-8"))
    assert len(messages[1]["content"].split()) >= 3  # what was said is kept
    t.end()


def test_ctrl_c_at_the_prompt(terminal: Any, tiny: Path) -> None:
    t = terminal("-m", tiny, "-n", "5")
    t.press("half a mess")
    t.expect("half a mess")
    t.press(CTRL_C)
    t.expect("Ctrl-C again, Ctrl-D or /exit ends")
    t.expect("^> ")
    t.say("hello")  # the program goes on, and forgets the first Ctrl-C
    t.press('"""\n')
    t.expect(r"^\. ")
    t.press("half")
    t.expect("half")
    t.press(CTRL_C)
    t.expect("Ctrl-C again")
    t.expect("^> ")
    t.end(CTRL_C)


def test_commands(terminal: Any, tiny: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "a b.json", tmp_path / "other.json"
    t = terminal("-m", tiny, "-n", "8", "--temp", "0")
    t.say("/help", r"/load FILE +go on with")
    t.say("/system", "no system message")
    first = int(t.say("hello")[1])
    t.say("/system be terse", "system: be terse")
    assert int(t.say("more")[1]) > first + 8
    t.say(f"/save {file}", "5 messages saved")
    t.say("/undo", "the last turn is forgotten")
    t.say(f"/save {other}", "3 messages saved")
    t.say("/reset", "begins anew")
    t.say("/undo", "nothing to forget")
    t.say("/system", "system: be terse")
    assert int(t.say("x")[1]) < 45
    t.say(f"/load {file}", "5 messages loaded")
    t.say(f"/save {other}", "5 messages saved")  # over a conversation
    assert json.loads(other.read_text()) == json.loads(file.read_text())
    for line, error in (
        ("/nonsense x", "/nonsense: no such command; /help lists them"),
        ("/save", "/save: expected a file, found nothing"),
        (f"/save {tiny}", "File exists, and is no conversation"),
        ("/save /nowhere/x", "/nowhere/x: No such file or directory"),
        ("/load /nowhere/x", "/nowhere/x: No such file or directory"),
        (f"/load {tiny}", "tiny.gguf: expected JSON, found"),
        (f"/load {tmp_path}", "expected a regular file, found d"),
        ("/load /dev/zero", "/dev/zero: expected a regular file, found c"),
        ("/save /dev/full", "File exists, and is no conversation"),
    ):
        t.say(line, f"^pyllama: error: .*{re.escape(error)}")
    other.write_text('[{"role": "user", "content": 5}]')
    t.say(f"/load {other}", r"other.json: messages\[0\].content: expected a str, .* found 5")
    t.say(f"/save {file}", "5 messages saved")  # none of it was lost
    t.say("//etc is a message")
    t.end("/exit\n")


def test_messages_of_many_lines(terminal: Any, tiny: Path, tmp_path: Path) -> None:
    t, file = terminal("-m", tiny, "-n", "2"), tmp_path / "chat.json"
    for keys in ("a\\\nb\\\nc\n", '"""first\n\n  second \\\nthird"""\n'):
        t.press(keys)
        t.expect(STATS)
        t.expect("^> ")
    for keys in ("\n", "  \n"):  # nothing to answer
        t.press(keys)
        t.expect("^> ")
    t.say(f"/save {file}", "4 messages saved")
    asked = [m["content"] for m in json.loads(file.read_text()) if m["role"] == "user"]
    assert asked == ["a\nb\nc", "first\n\n  second \\\nthird"]
    t.end()


def test_a_full_context(terminal: Any, tiny: Path, tmp_path: Path) -> None:
    t, file = terminal("-m", tiny, "-n", "40", "-sys", "keep me"), tmp_path / "chat.json"
    for _ in range(6):
        assert int(t.say("word " * 15)[5]) <= 256
    assert re.search("^pyllama: the context is full: the oldest [24] messages left out$", t.text, re.M)
    t.say("word " * 100, "the message does not fit: expected at most 255 tokens .*, found 3")
    t.say(f"/save {file}", "[357] messages saved")
    messages = json.loads(file.read_text())
    assert messages[0]["content"] == "keep me" and [m["role"] for m in messages[-2:]] == ["user", "assistant"]
    t.end()


def test_an_answer_that_fills_the_context(terminal: Any, tiny: Path) -> None:
    t = terminal("-m", tiny, "--temp", "0", "-c", "64")
    assert "context 64 of 64 | cut: the context is full" in t.say("hello")[0]
    t.say("again", "left out\n[^\\[]*" + STATS)
    t.end()


def test_history_lasts(terminal: Any, tiny: Path, tmp_path: Path) -> None:
    t = terminal("-m", tiny, "-n", "2")
    t.say("remember this")
    t.end()
    file = tmp_path / "state" / "pyllama" / "history"
    assert file.read_text() == "remember this\n" and file.parent.stat().st_mode & 0o77 == 0
    t = terminal("-m", tiny, "-n", "2")
    t.press(UP)
    t.expect("remember this")
    t.press("\n")
    t.expect(STATS)
    t.expect("^> ")
    t.press("/re" + TAB + "\n")
    t.expect("begins anew")
    t.expect("^> ")
    t.end()


def test_without_a_place_for_the_history(terminal: Any, tiny: Path) -> None:
    t = terminal("-m", tiny, "-n", "2", state=Path("/dev/null/nowhere"))
    t.say("hello")
    assert "error" not in t.end()


def test_a_template_that_refuses(terminal: Any, tiny: Path, tmp_path: Path) -> None:
    template = tmp_path / "t.jinja"
    template.write_text("{% if messages|length > 1 %}{{ raise_exception('No second turn') }}{% endif %}a")
    t = terminal("-m", tiny, "-n", "2", "--chat-template", template)
    t.say("one")
    t.say("two", f"^pyllama: error: {template}: line 1: No second turn")
    t.say("/reset", "anew")
    t.say("three")
    t.end()


def test_what_would_command_the_terminal() -> None:
    shown = "".join(map(chr, range(0x100))).translate(PICTURES)
    assert [c for c in shown if not c.isprintable()] == ["\t", "\n", "\xa0", "\xad"]


# ---- a pipe


def test_a_line_is_a_message(tiny: Path) -> None:
    args = ("chat", "-m", tiny, "-n", "12", "-t", "1", "--temp", "0", "-sys", "be brief")
    done = run(*args, stdin="hello\n\n/help\r\nlast")
    answers, messages = [], [{"role": "system", "content": "be brief"}]
    with LLM(tiny, n_threads=1) as llm:
        for text in ("hello", "/help", "last"):
            messages.append({"role": "user", "content": text})
            answers.append(llm.chat(messages, temperature=0, max_tokens=12)[0].text)
            messages.append({"role": "assistant", "content": answers[-1]})
    assert done.stdout == "".join(f"{answer}\n" for answer in answers)
    assert done.stderr == ""
    assert run(*args, stdin="").stdout == ""


def test_seeds(tiny: Path) -> None:
    def answers(*args: str) -> list[str]:
        return run("chat", "-m", tiny, "-n", "12", "-t", "1", *args, stdin="a\nb\n").stdout.splitlines()

    assert answers("-s", "5") == answers("-s", "5") != answers("-s", "6")
    assert answers() != answers()


def test_every_answer_has_a_seed_of_its_own(tiny: Path) -> None:
    """Two stories of one conversation would begin alike."""
    done = run("chat", "-m", tiny, "-n", "12", "-t", "1", "-s", "5", stdin="a\nb\n")
    with LLM(tiny, n_threads=1) as llm:
        messages: list[dict[str, str]] = []
        for text, seed in (("a", 5), ("b", 6)):
            messages.append({"role": "user", "content": text})
            answer = llm.chat(messages, seed=seed, max_tokens=12)[0].text
            messages.append({"role": "assistant", "content": answer})
    assert done.stdout == "".join(f"{m['content']}\n" for m in messages[1::2])


def test_dropped_turns_do_not_bring_a_seed_back(tiny: Path) -> None:
    """Of a full context the oldest turns go; the answers after that are drawn anew all the same."""
    from pyllama import SamplingParams
    from pyllama.chat import template_of
    from pyllama.cli.dialog import Dialog

    seeds = []
    with LLM(tiny, n_threads=1) as llm:
        stream = llm.stream
        llm.stream = lambda ids, params: seeds.append(params.seed) or stream(ids, params)
        params = SamplingParams(seed=5, max_tokens=40)
        dialog = Dialog(llm, template_of(llm.tokenizer, str(tiny)), params, None)
        dropped = 0
        for _ in range(5):
            turn = dialog.ask("word " * 15)
            list(turn.stream)
            dialog.keep(turn)
            dropped += turn.dropped
        assert dropped and seeds == [5, 6, 7, 8, 9]
        dialog.reset()
        list(dialog.ask("a").stream)
        assert seeds[-1] == 5


def test_a_template_from_a_file(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "t.jinja"
    file.write_text("{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}")
    args = ("-m", tiny, "-n", "9", "-t", "1", "--temp", "0")
    found = run("chat", *args, "--chat-template", file, stdin="hello").stdout
    with LLM(tiny, n_threads=1) as llm:
        ids = [1, *llm.tokenizer.encode("hello", add_bos=False)]
        assert found == llm.generate([ids], temperature=0, max_tokens=9)[0].text + "\n"


def test_a_full_context_in_a_pipe(tiny: Path) -> None:
    args = ("chat", "-m", tiny, "-n", "40", "-t", "1")
    done = run(*args, stdin=("word " * 15 + "\n") * 4)
    assert re.search("^pyllama: the context is full: the oldest [24] messages left out\n", done.stderr)
    assert len(done.stdout) > 100
    done = run(*args, stdin="a\n" + "word " * 100, code=1)
    assert re.fullmatch("pyllama: error: the message does not fit: expected .*, found 3..\n", done.stderr)
    assert len(done.stdout.splitlines()) == 1


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model without a template."""
    return ModelFiles(tmp_path_factory.mktemp("models"))()


@pytest.mark.parametrize(
    ("args", "stdin", "code", "message"),
    [
        (["-m", "nope.gguf"], "a", 1, "nope.gguf: No such file or directory"),
        (["-m", "BARE"], "a", 1, "tokenizer.chat_template: expected a chat template, found none"),
        (["-m", "MODEL", "--chat-template", "nope"], "a", 1, "nope: No such file or directory"),
        (["-m", "MODEL", "--chat-template", "BROKEN"], "a", 1, "broken.jinja: line 2: Unexpected end"),
        (["-m", "MODEL", "--chat-template", "MODEL"], "a", 1, "tiny.gguf: expected a template of at most"),
        (["-m", "MODEL", "--chat-template", "BINARY"], "a", 1, "binary.jinja: expected UTF-8"),
        (["-m", "MODEL", "--chat-template", "/dev/zero"], "a", 1, "zero: expected a template of at most"),
        (["-m", "MODEL", "--temp", "-1"], "a", 2, "--temp: expected"),
        (["-m", "MODEL", "-c", "100000"], "a", 2, "--ctx-size: expected 1 to 256"),
        (["-m", "MODEL", "-p", "a"], "a", 2, "-p"),
    ],
)  # fmt: skip
def test_errors_are_one_line(
    tiny: Path, bare: str, tmp_path: Path, args: list[str], stdin: str, code: int, message: str
) -> None:
    (tmp_path / "broken.jinja").write_text("a\n{% if x %}")
    (tmp_path / "binary.jinja").write_bytes(b"\xff")
    names = {"MODEL": tiny, "BARE": bare}
    names |= {name.upper(): tmp_path / f"{name}.jinja" for name in ("broken", "binary")}
    done = run("chat", *(names.get(a, a) for a in args), stdin=stdin, code=code)
    assert done.stderr.startswith("pyllama: error: ") and message in done.stderr.splitlines()[0]
    assert done.stdout == ""


def test_a_message_that_is_no_text(tiny: Path) -> None:
    command = [*COMMAND, "chat", "-m", tiny, "-n", "2"]
    done = subprocess.run(command, input=b"a\nb\xff\n", capture_output=True, env=ENV)
    assert done.returncode == 1 and done.stdout.count(b"\n") == 1
    assert done.stderr == b"pyllama: error: stdin: line 2: expected UTF-8, found invalid start byte at 1\n"


def test_ctrl_c_ends_a_pipe(endless: Path) -> None:
    child = start_with_stdin("chat", "-m", endless, "-t", "1", "--temp", "0")
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(b"hello\n")
    first = child.stdout.read(1)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130 and (first + out).endswith(b"\n") and err == b""


def start_with_stdin(*args: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=ENV,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_nothing_heavy_is_imported_early() -> None:
    assert {"rich", "pyllama._core", "jinja2", "readline"}.isdisjoint(modules_after("chat", "--help"))


# ---- what fits, without a terminal


def test_as_much_as_fits(endless: Path) -> None:
    """The oldest turns go, no more than must; the conversation is as it was until an answer is kept."""
    with LLM(endless, n_ctx=1024, n_threads=1) as llm:
        params = SamplingParams(temperature=0, max_tokens=10)
        template = template_of(llm.tokenizer, llm.model.path)
        for system in (None, "be brief"):
            dialog = Dialog(llm, template, params, system)
            head = dialog.messages[:]
            for i in range(200):
                dialog.messages.append({"role": "user", "content": f"question {i}"})
                dialog.messages.append({"role": "assistant", "content": "answer " * (i % 7)})
            before = dialog.messages[:]
            turn = dialog.ask("the last")
            asked = [*before, {"role": "user", "content": "the last"}]
            assert turn.dropped % 2 == 0 and turn.messages == head + asked[len(head) + turn.dropped :]
            assert len(turn.stream.output.prompt_token_ids) + 10 <= 1024
            one_more = head + asked[len(head) + turn.dropped - 2 :]
            assert len(dialog._ids(one_more)) + 10 > 1024
            assert dialog.messages == before
            list(turn.stream)
            assert dialog.keep(turn) and len(dialog.messages) == len(turn.messages) + 1
            with pytest.raises(ContextLengthError, match="the message does not fit"):
                dialog.ask("word " * 500)
