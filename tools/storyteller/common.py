"""What all plots share: how a story begins, how friends meet, how it ends.

A stage is a list of lines of which a story takes one; "" leaves the stage out. The slots are those of
lexicon.SLOTS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

Lines = list[str]


@dataclass(frozen=True)
class Plot:
    """A problem with its attempts and its one right ending.

    stages: name -> lines, in order; a name that begins with "+" begins a paragraph. wishes: what a user may
    ask for. answers: topic -> lines. objects, colors: what the plot can happen with.
    """

    name: str
    objects: list[str]
    colors: list[str]
    stages: dict[str, Lines]
    wishes: Lines
    answers: dict[str, Lines]

    @property
    def first(self) -> str:
        """The first stage that other plots do not have."""
        return next(name for name, lines in self.stages.items() if lines not in (OPENINGS, SCENES, OWNS))


ONCE: Final = [
    "Once upon a time, there was {aA} {K} named {N}. {He} lived {at} {aD} {P}.",
    "Once upon a time, {aA} {K} named {N} lived {at} {aD} {P}.",
    "Once upon a time, {at} {aD} {P}, there lived {aA} {K}. {His} name was {N}.",
    "Once upon a time, there was {aA} {K}. {His} name was {N}, and {he} lived {at} {aD} {P}.",
]
OPENINGS: Final = [
    *ONCE,
    *ONCE,  # every other story begins so
    "{At} {aD} {P}, there lived {aA} {K}. {His} name was {N}.",
    "Long ago, {aA} {K} called {N} had a home {at} {aD} {P}.",
    "{N} was {aA} {K} who lived {at} {aD} {P}.",
    "There once was {aA} {K} whose name was {N}. {N} lived {at} {aD} {P}.",
    "This is the story of {N}, {aA} {K} who lived {at} {aD} {P}.",
    "Once there lived {aA} {K} {at} {aD} {P}. Everyone called {him} {N}.",
    "Far away, {at} {aD} {P}, lived {aA} {K} named {N}.",
    "Do you know {N}? {N} is {aA} {K} who lives {at} {aD} {P}.",
]
OWNS: Final = [
    "{N} had {aC} {O}, and {he} loved it very much.",
    "Of all the things {he} had, {he} liked {his} {C} {O} best.",
    "{He} had {aC} {O}, a gift from {his} {R}.",
    "{N} was very proud of {his} {C} {O}.",
    "{His} best treasure was {aC} {O}.",
    "Wherever {N} went, {he} took {his} {C} {O} along.",
    "{N} had only one treasure. It was {aC} {O} that {his} {R} had made.",
    "Last winter, {his} {R} gave {him} {aC} {O}, and {he} was glad about it every day.",
]
SCENES: Final = [
    *[""] * 5,
    "The {P} was full of birds and flowers.",
    "{He} loved the {P}, and {he} knew every stone there.",
    "There was no better place than that {P}.",
    "Everyone knew the {P}, and everyone knew {N}.",
    "The sun was shining, and the birds were singing.",
    "Every morning, {he} sang a little song.",
]
SORROWS: Final = [
    "",
    "{N} felt very sad.",
    "{He} was so sad that a tear ran down {his} cheek.",
    '"Oh no!" {he} cried. "What can I do now?"',
    "{He} sat down and began to cry.",
    '"Oh dear, oh dear," said {N}.',
    "{N} did not know what to do.",
    "{His} heart was heavy.",
]
MEETINGS: Final = [
    "Just then, {aB} {G} came by.",
    "Then {he} met {aB} {G}.",
    "{AB} {G} heard {him} and came closer.",
    "After a while, {aB} {G} came down the path.",
    "Not far away sat {aB} {G}.",
    "{AB} {G} saw that something was wrong.",
    "{N} went to see {aB} {G} who knew many things.",
]
QUESTIONS: Final = [
    '"What is wrong, {N}?" asked the {G}.',
    '"Why do you look so sad?" it asked.',
    '"Can I help you?" asked the {G} in a kind voice.',
    '"Hello, {N}. What happened?" said the {G}.',
    '"You look sad, {N}," said the {G}. "Tell me about it."',
    'The {G} sat down next to {him} and asked, "What is the matter?"',
]
THANKS: Final = [
    "",
    '"Thank you, dear {G}!" said {N}. "You are a good friend."',
    '"Thank you so much," {he} said, and {he} gave the {G} a big hug.',
    "{N} thanked the {G} again and again.",
    '"I could not have done it without you," {N} told the {G}.',
    "{N} was so happy that {he} danced around the {G}.",
]
CLOSINGS: Final = [
    *[""] * 6,
    "The end.",
    "From that day on, {N} and the {G} were the best of friends.",
    "That evening, they ate {Y} together and laughed a lot.",
    "And the {P} was a happy place again.",
    "To this day, {N} and the {G} meet and tell each other stories.",
    "Then the stars came out, and everyone went to sleep.",
    "{N} and the {G} had {Y} for supper, and all was well.",
    "And if you ever come to that {P}, you may meet {N} and the {G} there.",
]
