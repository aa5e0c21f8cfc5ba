"""Chats with the storyteller: a wish, a story, questions about it, and plain questions about stories."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .common import Lines
from .general_talk import GENERAL, NO_STORY, STRANGE, STRANGE_ANSWERS, STRANGE_WORDS
from .generator import Story, draw_cast, tell
from .grammar import PLOTS, fill, variables
from .lexicon import COLORS, with_article
from .story_talk import (
    ALL_PLOTS,
    ASKS,
    ASKS_FOR,
    BEGINNINGS,
    BY_PLOT,
    COLOR,
    HELPER,
    LOOK,
    LOST_NOTHING,
    MET,
    MORE,
    OWNER,
    STRANGE_LEADS,
    STRANGE_WISHES,
    SYSTEM,
    TOPICS,
    WHERE,
    WISHES,
    WITH_HELPER,
    WITHOUT_OWNER,
    Talk,
)


@dataclass(frozen=True)
class Message:
    """One turn of a chat. role: system, user or assistant. decided: a part of the text that follows from what
    was said before."""

    role: str
    text: str
    decided: str = ""


def converse(rng: random.Random) -> list[Message]:
    """A chat: with a story or two, or about stories in general."""
    messages = [Message("system", rng.choice(SYSTEM))] if rng.random() < 0.15 else []
    if rng.random() < 0.3:
        for _ in range(rng.randint(2, 8)):
            messages += _general(rng, [*GENERAL, NO_STORY])
        if rng.random() < 0.5:
            return messages
    elif rng.random() < 0.3:
        messages += _general(rng, GENERAL[:4])
    for i in range(rng.choices((1, 2), (70, 30))[0]):
        story, turns = _wish(rng, first=i == 0)
        messages += turns
        for _ in range(rng.randint(1, 6)):
            messages += _general(rng, GENERAL) if rng.random() < 0.2 else _question(rng, story)
    return messages


def read(rng: random.Random) -> list[Message]:
    """A chat about a few lines that the user tells: dense in names to be kept apart and said again."""
    lost = PLOTS["lost"]
    cast = draw_cast(rng, lost)
    lines = [rng.choice(lost.stages[name]) for name in ("opening", "scene", "own", "+meeting")]
    lines = [line for line in lines if line]
    told = frozenset().union(*map(variables, lines))
    story = Story(fill(" ".join(lines), cast), lost, cast, told)
    talks = [*ALL_PLOTS[:6], WHERE, *OWNER, COLOR, MET]
    messages: list[Message] = []
    for _ in range(rng.randint(3, 8)):
        messages += _answered(rng, story, talks)
    first, *rest = messages
    return [Message("user", f"{story.text}\n{first.text}"), *rest]


def begin(rng: random.Random) -> list[Message]:
    """A chat of beginnings: dense in wishes, and in what the line that tells the plot has to do with them."""
    messages: list[Message] = []
    for _ in range(rng.randint(3, 8)):
        plot = rng.choice(list(PLOTS.values()))
        cast = draw_cast(rng, plot)
        wish = fill(rng.choice(plot.wishes), cast)
        opening, problem = (fill(rng.choice(plot.stages[name]), cast) for name in ("opening", plot.first))
        messages += _turns(rng, rng.choice(BEGINNINGS).format(wish), f"{opening} {problem}", problem)
    return messages


def _turns(rng: random.Random, question: str, answer: str, decided: str = "") -> list[Message]:
    return [Message("user", _as_typed(rng, question)), Message("assistant", answer, decided)]


def _as_typed(rng: random.Random, text: str) -> str:
    """As people type: not every capital and question mark is there."""
    if rng.random() < 0.2:
        text = text.rstrip("?.!")
    return text[0].lower() + text[1:] if rng.random() < 0.15 else text


def _general(rng: random.Random, talks: list[Talk]) -> list[Message]:
    """A question that needs no story; one in eight is about something the storyteller does not know."""
    if rng.random() < 0.12:
        question = rng.choice(STRANGE)
        while "{Z}" in question or "{Q}" in question:
            question = question.replace("{Z}", rng.choice(STRANGE_WORDS), 1)
            question = question.replace("{Q}", str(rng.randint(1, 99)), 1)
        return _turns(rng, question, rng.choice(STRANGE_ANSWERS))
    questions, answers = rng.choice(talks)
    return _turns(rng, rng.choice(questions), rng.choice(answers))


def _wish(rng: random.Random, first: bool) -> tuple[Story, list[Message]]:
    """A story and the turns in which it is wished for and told."""
    story = tell(rng)
    kind = rng.random()
    if kind < 0.2:
        return story, _turns(rng, rng.choice(ASKS if first else MORE), story.text)
    if kind < 0.26:
        wish = rng.choice(ASKS_FOR).format(with_article(rng.choice(STRANGE_WISHES)))
        return story, _turns(rng, wish, f"{rng.choice(STRANGE_LEADS)}\n\n{story.text}")
    if kind < 0.4:
        wish = rng.choice([line for line in WISHES if variables(line) <= story.told])
        return story, _turns(rng, rng.choice(ASKS_FOR).format(fill(wish, story.cast)), story.text)
    wish = fill(rng.choice(story.plot.wishes), story.cast)
    asked = wish if kind < 0.45 else rng.choice(ASKS_FOR).format(wish)
    return story, _turns(rng, asked, story.text, story.problem)


def _question(rng: random.Random, story: Story) -> list[Message]:
    """A question about a story, with an answer that the story gives."""
    return _answered(rng, story, story_talks(story))


def _answered(rng: random.Random, story: Story, talks: list[Talk]) -> list[Message]:
    """A question and its answer, of which the story tells all that they name."""
    while True:
        questions, answers = rng.choice(talks)
        questions = [line for line in questions if variables(line) <= story.told]
        answers = [line for line in answers if variables(line) <= story.told]
        if questions and answers:
            question, answer = rng.choice(questions), rng.choice(answers)
            return _turns(rng, fill(question, story.cast), fill(answer, story.cast))


def story_talks(story: Story) -> list[Talk]:
    """What can be asked about a story. The plain questions come twice as often."""
    plot = story.plot
    topics: list[Talk] = [(TOPICS[topic], answers) for topic, answers in plot.answers.items()]
    talks = [*ALL_PLOTS, *ALL_PLOTS[:4], *topics, *topics, *BY_PLOT[plot.name], *BY_PLOT[plot.name]]
    if plot.name in WITH_HELPER:
        talks += HELPER
    if plot.name not in WITHOUT_OWNER:
        talks += OWNER
    if plot.name not in ("lost", "astray"):
        talks += LOST_NOTHING
    talks.append(COLOR if story.cast["color"] in COLORS else LOOK)
    return talks


def all_lines() -> Lines:
    """Every line with slots of the chats, for tests."""
    talks = [*ALL_PLOTS, *HELPER, *OWNER, *LOST_NOTHING, COLOR, LOOK]
    talks += [talk for talks in BY_PLOT.values() for talk in talks]
    talks += [(TOPICS[topic], answers) for plot in PLOTS.values() for topic, answers in plot.answers.items()]
    return [line for questions, answers in talks for line in (*questions, *answers)] + WISHES
