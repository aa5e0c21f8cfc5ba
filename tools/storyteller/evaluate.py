"""How good is the storyteller? python -m storyteller.evaluate MODEL.gguf [--samples 200] [--chats 20]

Samples stories at temperature 0.8, else as the file recommends, and counts those that the checker accepts;
then wishes for a story in a chat, asks ten plain questions, and counts the answers that are
true of what was told, adjectives aside.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pyllama import LLM

from .chat import story_talks
from .checker import Verdict, check
from .general_talk import GENERAL
from .generator import Story
from .grammar import fill, variables
from .lexicon import FRIEND_TRAITS, PLACE_TRAITS, TRAITS, VARIABLES

PROMPTS = ("", "Once upon a time")
TEMPERATURE = 0.8
ADJECTIVES = {*TRAITS, *FRIEND_TRAITS, *PLACE_TRAITS}
WISH = "Tell me a story about a fox who lost a kite."
QUESTIONS = [
    "Who is the hero of your story?",
    "Where did it happen?",
    "What did {N} lose?",
    "What color was the {O}?",
    "Who is the {G}?",
    "What did {N} learn?",
    "How did it end?",
    "What is a story?",
    "What makes a good story?",
    "What is a moral?",
]


def sample_stories(llm: LLM, n: int, seed: int = 0) -> list[tuple[str, str, bool]]:
    """n of (story with its prompt, finish reason, whether it is coherent), seeds from `seed` on."""
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(n)]
    params = [replace(llm.default_params, temperature=TEMPERATURE, seed=seed + i) for i in range(n)]
    outputs = llm.generate(prompts, params)
    texts = [
        (p + out.text, out.outputs[0].finish_reason or "") for p, out in zip(prompts, outputs, strict=True)
    ]
    return [(text, reason, reason == "stop" and check(text).ok) for text, reason in texts]


def ask_ten(llm: LLM, temperature: float, seed: int) -> Iterator[tuple[str, str, bool]]:
    """Question, answer, whether it is right; first the wish, whose answer is the story wished for."""
    messages: list[dict[str, str]] = []

    def ask(content: str) -> str:
        messages.append({"role": "user", "content": content})
        answer = llm.chat(messages, temperature=temperature, seed=seed)[0].text
        messages.append({"role": "assistant", "content": answer})
        return answer

    text = ask(WISH)
    told = check(text)
    yield WISH, text, _is_wished(told)
    for line in QUESTIONS:
        question = fill(line, _Facts(told.facts))
        answer = ask(question)
        yield question, answer, bare(answer) in _right_answers(line, text, told)


def _right_answers(line: str, text: str, told: Verdict) -> set[str]:
    """What is true of the story told, or of stories, without adjectives; nothing if it was refused."""
    talks = list(GENERAL)
    if told.plot:
        talks += story_talks(Story(text, told.plot, _Facts(told.facts), frozenset(told.facts)))
    answers = [answer for questions, answers in talks if line in questions for answer in answers]
    return {bare(fill(a, told.facts)) for a in answers if variables(a) <= set(told.facts)}


def bare(text: str) -> str:
    """The text without what hero, friend and place are like: such words a model of this size mixes up."""
    return " ".join(word for word in text.split() if word not in ADJECTIVES and word not in ("a", "an"))


class _Facts(dict[str, str]):
    """Facts of a story; one that it does not tell is any value."""

    def __missing__(self, name: str) -> str:
        return VARIABLES[name][0]


def _is_wished(told: Verdict) -> bool:
    found = told.plot and (told.plot.name, told.facts.get("kind"), told.facts.get("object"))
    return found == ("lost", "fox", "kite")


def report(llm: LLM, n_samples: int, n_chats: int, show: int) -> None:
    results = sample_stories(llm, n_samples)
    for text, reason, ok in [r for r in results if not r[2]][:show]:
        print(f"--- refused ({reason}, {check(text).reason}, ok={ok})\n{text}\n")
    ok = sum(r[2] for r in results)
    print(f"{ok} of {n_samples} stories are coherent: {100 * ok / n_samples:.1f} %")
    if n_samples:
        n_texts = len({text for text, _, _ in results})
        plots = Counter(plot.name for text, _, ok in results if ok and (plot := check(text).plot))
        print(f"{n_texts} different ones; plots: {dict(plots.most_common())}")
    n_wished = n_right = 0
    for seed in range(n_chats):
        (wish, story, wished), *turns = ask_ten(llm, 0.0 if seed == 0 else TEMPERATURE, seed)
        n_wished += wished
        n_right += sum(right for _, _, right in turns)
        shown = turns if seed == 0 else [turn for turn in turns if not turn[2]]
        print(f"> {wish}\n{story}\n" if seed == 0 or shown else "", end="")
        for question, answer, right in shown:
            print(f"> {question}\n{answer}{'' if right else '   [WRONG]'}\n")
    if n_chats:
        print(f"{n_wished} of {n_chats} stories in chats are those wished for")
        n = n_chats * len(QUESTIONS)
        print(f"{n_right} of {n} answers are right: {100 * n_right / n:.1f} %")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--chats", type=int, default=20)
    parser.add_argument("--show", type=int, default=5, help="refused stories to print")
    arguments = parser.parse_args()
    with LLM(arguments.model) as llm:
        report(llm, arguments.samples, arguments.chats, arguments.show)
