"""A plot about a lie and the truth."""

from __future__ import annotations

from typing import Final

from .common import CLOSINGS, OPENINGS, SCENES, Plot
from .lexicon import COLORS, TOYS

TRUTH: Final = Plot(
    name="truth",
    objects=TOYS,
    colors=COLORS,
    stages={
        "opening": OPENINGS,
        "scene": SCENES,
        "own": [
            "{N} had a friend, {aB} {G}. The {G} had {aC} {O}.",
            "Next door lived {aB} {G}. The {G} had {aC} {O} and loved it very much.",
            "{His} best friend was {aB} {G}, who had {aC} {O}.",
        ],
        "+problem": [
            "{When}, {N} played with the {O} when the {G} was not there. Crack! It broke.",
            "{When}, the {G} let {N} play with the {O}. It slipped, and it broke.",
            "{When}, {N} took the {C} {O} without asking, and then it fell and broke.",
        ],
        "hide": [
            "{N} was afraid that the {G} would be angry, so {he} hid it {U}.",
            "Quickly, {he} hid the broken {O} {U}.",
            '"Nobody must know," said {N}, and {he} put the {O} {U}.',
        ],
        "attempt": [
            '"Have you seen my {O}?" asked the {G}. "No," said {N}. But that was not true.',
            "The {G} looked for the {O} everywhere. {N} said nothing and looked at the ground.",
            'When the {G} asked about the {O}, {N} said, "Maybe the wind took it."',
        ],
        "+sorrow": [
            "That night, {N} could not sleep. {He} felt bad about the lie.",
            "All day long, {he} had a stone in {his} belly. It was the lie.",
            "{N} could not eat, and {he} could not play. {He} had to think of the lie.",
        ],
        "resolve": [
            'In the morning, {N} went to the {G} and told the truth. "I broke your {O}. I am so sorry."',
            'At last {he} said, "I did not tell the truth. I broke your {O} and hid it."',
            'So {N} brought the broken {O} to the {G}. "I did it," {he} said, "and I am sorry."',
        ],
        "thanks": [
            '"Thank you for telling me the truth," said the {G}.',
            'The {G} was sad at first, but then it said, "It is brave to tell the truth."',
            '"I am not angry," said the {G}. "You are still my friend."',
        ],
        "ending": [
            "Together they fixed the {C} {O}, and {N} never told a lie again.",
            "They fixed the {O} together, and the lie was gone for good.",
            "{N} helped the {G} to fix the {O}, and {his} heart was light again.",
        ],
        "lesson": [
            "{N} learned that the truth is better than a lie.",
            "{He} learned that a true friend can forgive.",
            "Tell the truth, even if it is hard.",
        ],
        "closing": CLOSINGS,
    },
    wishes=["{aK} who told a lie", "telling the truth", "{aK} who broke {aO} of a friend"],
    answers={
        "problem": ["{N} broke the {O} of the {G} and hid it.", "{N} told a lie about the {O} of the {G}."],
        "ending": ["In the end, {N} told the truth.", "{N} told the truth, and they fixed the {O} together."],
        "lesson": ["{N} learned that the truth is better than a lie."],
        "where": ["{N} hid the {O} {U}."],
    },
)
