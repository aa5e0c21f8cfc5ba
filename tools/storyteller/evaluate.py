"""How good is the storyteller? python -m storyteller.evaluate MODEL.gguf [--samples 200] [--chats 20]

Samples stories at temperature 0.8, else as the file recommends, and counts those that the checker accepts;
then asks ten plain questions in a chat and counts the answers that agree with the story told.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pyllama import LLM

from .checker import Verdict, check

PROMPTS = ("", "Once upon a time")
TEMPERATURE = 0.8
WISH = "Tell me a story about a fox who lost a kite."
# Each with the slots of facts; what an answer must have, any word group of each list.
QUESTIONS: list[tuple[str, list[list[str]]]] = [
    ("Who is the hero of your story?", [["{name}"], ["{kind}"]]),
    ("Where did it happen?", [["{place}"]]),
    ("What did {name} lose?", [["{object}"]]),
    ("What color was the {object}?", [["{color}"]]),
    ("Who helped {name}?", [["{friend_kind}"]]),
    ("What did {name} learn?", [["learned"], ["find lost things"]]),
    ("How did it end?", [["back", "find", "found"]]),
    ("What is a story?", [["tells what happened"]]),
    ("What makes a good story?", [["hero"], ["ending"]]),
    ("What is a moral?", [["learn"]]),
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
    """Question, answer, whether it is right; the wish for a story comes first."""
    messages: list[dict[str, str]] = []

    def ask(content: str) -> str:
        messages.append({"role": "user", "content": content})
        answer = llm.chat(messages, temperature=temperature, seed=seed)[0].text
        messages.append({"role": "assistant", "content": answer})
        return answer

    story = ask(WISH)
    told = check(story)
    yield WISH, story, _is_wished(told)
    for question, wanted in QUESTIONS:
        question = question.format_map(_Facts(told.facts))
        answer = ask(question)
        groups = [[word.format_map(_Facts(told.facts)) for word in words] for words in wanted]
        yield question, answer, all(any(word in answer for word in words) for words in groups)


class _Facts(dict[str, str]):
    """Facts of a story; one that it does not tell is a word that no answer has."""

    def __missing__(self, name: str) -> str:
        return f"<no {name}>"


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
    wrong: Counter[str] = Counter()
    n_right = 0
    for seed in range(n_chats):
        turns = list(ask_ten(llm, 0.0 if seed == 0 else TEMPERATURE, seed))
        for question, answer, right in turns:
            if seed == 0:
                print(f"> {question}\n{answer}{'' if right else '   [WRONG]'}\n")
            if not right and seed:
                print(f"[wrong, seed {seed}] {question} -> {answer[:100]!r}")
            wrong[question] += not right
        n_right += sum(right for _, _, right in turns)
    if n_chats:
        n_turns = n_chats * (len(QUESTIONS) + 1)
        print(f"{n_right} of {n_turns} turns in {n_chats} chats are right: {100 * n_right / n_turns:.1f} %")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--chats", type=int, default=20)
    parser.add_argument("--show", type=int, default=5, help="refused stories to print")
    arguments = parser.parse_args()
    with LLM(arguments.model) as llm:
        report(llm, arguments.samples, arguments.chats, arguments.show)
