"""The bundled storyteller: its generator, its checker, and what the model tells."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyllama import LLM, SamplingParams
from pyllama.locate import BUNDLED

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "tools"
sys.path.insert(0, str(TOOLS))

from storyteller.chat import all_lines, converse  # noqa: E402
from storyteller.checker import check  # noqa: E402
from storyteller.evaluate import ask_ten, sample_stories  # noqa: E402
from storyteller.generator import Story, stories  # noqa: E402
from storyteller.grammar import PLOTS, SLOT  # noqa: E402
from storyteller.lexicon import GENDER_OF, NAMES, SLOTS, VARIABLES  # noqa: E402

Corruption = Callable[[Story, random.Random], str | None]


# ---- the generator ----


def test_same_seed_same_stories() -> None:
    assert [s.text for s in stories(3, 50)] == [s.text for s in stories(3, 50)]
    assert [s.text for s in stories(3, 50)] != [s.text for s in stories(4, 50)]


def test_stories_are_short_varied_and_of_every_plot() -> None:
    many = stories(5, 400)
    lengths = [len(s.text.split()) for s in many]
    assert min(lengths) >= 80 and max(lengths) <= 230
    assert len({s.text for s in many}) == len(many)
    assert {s.plot.name for s in many} == set(PLOTS)


def test_a_template_names_known_slots() -> None:
    lines = [line for plot in PLOTS.values() for stage in plot.stages.values() for line in stage]
    lines += [line for plot in PLOTS.values() for line in plot.wishes]
    assert {slot for line in [*lines, *all_lines()] for slot in SLOT.findall(line)} <= set(SLOTS)


def test_a_chat_takes_turns_and_fills_all_slots() -> None:
    rng = random.Random(2)
    for _ in range(200):
        messages = converse(rng)
        roles = [m.role for m in messages if m.role != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2) and roles
        assert not any(re.search(r"[{}]", m.text) for m in messages)


# ---- the checker ----


def test_the_checker_accepts_what_the_generator_tells() -> None:
    for story in stories(11, 400):
        verdict = check(story.text)
        assert verdict.ok, f"{verdict.reason}\n{story.text}"
        assert verdict.plot is not None
        told = {name: verdict.facts.get(name) for name in ("name", "kind", "place", "object", "friend_kind")}
        assert told == {name: story.cast[name] for name in told}


def replace_one(text: str, word: str, other: str, rng: random.Random) -> str | None:
    """The text with one of several mentions of a word replaced; None if there is only one."""
    found = list(re.finditer(rf"\b{word}\b", text))
    if len(found) < 2:
        return None
    at = rng.choice(found)
    return text[: at.start()] + other + text[at.end() :]


def swap(variable: str) -> Corruption:
    """Another value at one mention."""

    def corrupt(story: Story, rng: random.Random) -> str | None:
        value = story.cast[variable]
        values: list[str] = VARIABLES[variable]
        if variable == "name":  # of the same gender: pronouns must not give it away
            values = NAMES[GENDER_OF[value]]
        return replace_one(story.text, value, rng.choice([v for v in values if v != value]), rng)

    return corrupt


def other_ending(story: Story, rng: random.Random) -> str:
    """The last paragraph of a story with another plot, told of the same hero."""
    other = rng.choice([s for s in ENDINGS if s.plot is not story.plot])
    ending = other.text.split("\n\n")[-1]
    for variable in ("name", "friend_kind", "object", "place", "kind"):
        ending = re.sub(rf"\b{other.cast[variable]}\b", story.cast[variable], ending)
    return "\n\n".join([*story.text.split("\n\n")[:-1], ending])


def pronoun(story: Story, rng: random.Random) -> str | None:
    """One "he" for "she"."""
    one, other = ("he", "she") if story.cast["gender"] == "m" else ("she", "he")
    found = list(re.finditer(rf"\b{one}\b", story.text))
    if not found:
        return None
    at = rng.choice(found)
    return story.text[: at.start()] + other + story.text[at.end() :]


def without_a_word(story: Story, rng: random.Random) -> str:
    words = story.text.split(" ")
    del words[rng.randrange(1, len(words) - 1)]
    return " ".join(words)


def swapped_sentences(story: Story, rng: random.Random) -> str | None:
    first, *rest = story.text.split("\n\n")
    return "\n\n".join([rest[0], first, *rest[1:]]) if rest else None


def cut(story: Story, rng: random.Random) -> str:
    return story.text[: rng.randrange(20, len(story.text) * 3 // 4)]


def strange_word(story: Story, rng: random.Random) -> str:
    words = story.text.split(" ")
    words[rng.randrange(len(words))] = "quantum"
    return " ".join(words)


def goes_on(story: Story, rng: random.Random) -> str:
    return f"{story.text} {rng.choice(ENDINGS).text}"


ENDINGS = stories(99, 100)
CORRUPTIONS: dict[str, Corruption] = {
    **{variable: swap(variable) for variable in ("name", "friend_kind", "object", "place", "color")},
    "ending": other_ending,
    "pronoun": pronoun,
    "missing word": without_a_word,
    "order": swapped_sentences,
    "cut": cut,
    "strange word": strange_word,
    "goes on": goes_on,
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_checker_refuses(name: str) -> None:
    rng = random.Random(17)
    texts = [(s, CORRUPTIONS[name](s, rng)) for s in stories(23, 150)]
    corrupted = [text for story, text in texts if text is not None and text != story.text]
    assert len(corrupted) >= 30
    accepted = [text for text in corrupted if check(text).ok]
    # A word left out may leave a sentence that another plot line has ("very sad" and "sad").
    assert len(accepted) <= 0.02 * len(corrupted), accepted[0]


@pytest.mark.parametrize("text", ["", " ", "Once upon a time", "Hello!", "Once there was a fox."])
def test_the_checker_refuses_what_is_no_story(text: str) -> None:
    verdict = check(text)
    assert not verdict.ok and verdict.reason


# ---- the model ----


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM() as model:
        yield model


def test_the_bundled_model_is_small(llm: LLM) -> None:
    assert BUNDLED.stat().st_size <= 8_000_000
    d = llm.default_params
    assert (d.temperature, d.min_p) == pytest.approx((0.8, 0.1))
    assert d == SamplingParams(temperature=d.temperature, min_p=d.min_p)


def test_the_model_tells_coherent_stories(llm: LLM) -> None:
    results = sample_stories(llm, 20, seed=1000)
    assert all(reason == "stop" for _, reason, _ in results)
    assert len({text for text, _, _ in results}) == len(results)
    refused = [f"{check(text).reason}\n{text}" for text, _, ok in results if not ok]
    assert len(refused) <= 2, refused[0]


def test_the_model_answers_questions(llm: LLM) -> None:
    _, *turns = ask_ten(llm, 0.0, 0)
    wrong = [(question, answer) for question, answer, right in turns if not right]
    assert len(turns) == 10 and len(wrong) <= 1, wrong


def test_the_vocabulary_has_the_turns(llm: LLM) -> None:
    t = llm.tokenizer
    ids = t.encode("<|user|>\nHello!<|end|>\n<|assistant|>\n", special=True)
    assert [t.piece(i) for i in ids if t.piece(i).startswith("<|")] == [
        "<|user|>",
        "<|end|>",
        "<|assistant|>",
    ]
    assert ids[0] == t.bos_id and len(t.stop_ids) == 2
    text = "Once upon a time, naïve 😀 <|end|>"
    assert t.decode(t.encode(text)) == text
