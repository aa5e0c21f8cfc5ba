"""Plots about someone who is in need: lonely, afraid, far from home, in a trap."""

from __future__ import annotations

from typing import Final

from .common import CLOSINGS, MEETINGS, OPENINGS, OWNS, QUESTIONS, SCENES, SORROWS, THANKS, Plot
from .lexicon import COLORS, LONG, TOYS

LONELY: Final = Plot(
    name="lonely",
    objects=TOYS,
    colors=COLORS,
    stages={
        "opening": OPENINGS,
        "scene": SCENES,
        "own": OWNS,
        "+problem": [
            "But {N} was lonely. {He} had nobody to play with.",
            "There was only one thing {he} did not have, and that was a friend. {N} was lonely.",
            '{When}, {N} was lonely. "I wish I had a friend," {he} said.',
            "All the others had a friend, but {N} was lonely.",
        ],
        "attempt": [
            "{He} tried to play alone, but it was no fun.",
            "{He} asked the clouds to play, but they only sailed away.",
            "{N} talked to the {O}, but the {O} did not answer.",
            "{He} made a friend out of leaves, but the wind blew it away.",
            "{He} waited all day long, but nobody came.",
        ],
        "+meeting": [
            "Then {aB} {G} came to live next door.",
            "Then something good happened. {AB} {G} came to live not far away.",
            "A little later, {he} saw someone new. It was {aB} {G}.",
            "The next day, {he} heard someone sing {S}. It was {aB} {G}.",
        ],
        "question": [
            '"Hello," said the {G}. "I am new here. What is your name?"',
            '"What a nice {O}!" said the {G}. "Is it yours?"',
            '"Why do you sit here all alone?" asked the {G}.',
            "The {G} looked at the {C} {O} and smiled.",
        ],
        "tell": [
            '"I am {N}," said {N}, "and this is my {O}. I have nobody to play with."',
            '{N} was shy, but {he} said, "I am {N}. Would you like to see my {O}?"',
            '"I am looking for a friend," said {N} in a small voice.',
        ],
        "+resolve": [
            '"Then let us play together," said the {G}. They played with the {O} until the sun went down.',
            '"I have no friend here either," said the {G}. "Let us be friends!" '
            "They played with the {C} {O}.",
            '"May I play with you?" asked the {G}. "Yes, please!" said {N}, and {he} gave the {G} the {O}.',
        ],
        "joy": [
            "",
            "They laughed so much that they fell over.",
            "{N} had never had so much fun.",
            "The {G} knew many games, and {N} knew many songs.",
        ],
        "ending": [
            "{N} was not lonely anymore.",
            "Now {N} had a friend, and {he} was never lonely again.",
            "From then on, {N} and the {G} played with the {O} every day, and nobody was lonely.",
        ],
        "lesson": [
            "{N} learned that a kind word can make a new friend.",
            "{He} learned that a friend may come when you least expect it.",
            "If you want a friend, say hello first.",
        ],
        "closing": CLOSINGS,
    },
    wishes=["a lonely {K}", "{aK} who had no friends", "{aK} who wanted a friend"],
    answers={
        "problem": ["{N} was lonely.", "{N} had nobody to play with."],
        "ending": [
            "In the end, {N} and the {G} became friends.",
            "{N} found a friend and was not lonely anymore.",
        ],
        "lesson": ["{N} learned that a kind word can make a new friend."],
    },
)

AFRAID: Final = Plot(
    name="afraid",
    objects=TOYS,
    colors=COLORS,
    stages={
        "opening": OPENINGS,
        "scene": SCENES,
        "own": OWNS,
        "+problem": [
            "But {N} was afraid of {X}, and {he} did not tell anyone.",
            "There was one thing that {he} did not like. {N} was afraid of {X}.",
            "{N} was happy all day, but {he} was afraid of {X}.",
            "Everyone knew that {N} was afraid of {X}.",
        ],
        "attempt": [
            "{He} hid under a blanket and held the {O}, but {he} was still afraid.",
            "{He} closed {his} eyes and counted to ten. It did not help.",
            "{He} sang a loud song, but {his} voice was shaking.",
            "{He} ran home and shut the door, but the fear came along.",
        ],
        "+meeting": MEETINGS,
        "question": QUESTIONS,
        "tell": [
            '"I am afraid of {X}," said {N} in a small voice.',
            '"Please do not laugh," said {N}. "I am afraid of {X}."',
            "{N} told the {G} that {he} was afraid of {X}.",
        ],
        "help": [
            '"I was afraid of {X} too," said the {G}. "Hold your {O} tight and count to ten."',
            '"You are braver than you think," said the {G}. "I will stay with you."',
            '"Let us go together," said the {G}. "Take your {O} with you, and I will take your hand."',
            '"Everybody is afraid of something," said the {G}. "Let us try it step by step."',
        ],
        "+resolve": [
            "{N} held the {C} {O} and took a deep breath. Slowly, the fear went away.",
            "{N} took one step, and then one more. Nothing bad happened! {He} held up the {O} and laughed.",
            "So they went, and {N} held the {O} all the time. {His} heart beat fast, but {he} did not run.",
        ],
        "thanks": THANKS,
        "ending": [
            "{N} was not afraid of {X} anymore.",
            "From then on, {N} was never again afraid of {X}.",
            '"Look at me!" cried {N}. "I am not afraid of {X} anymore!"',
        ],
        "lesson": [
            "{N} learned that to be brave is to try, even with a shaking heart.",
            "{He} learned that fear gets smaller when you share it.",
            "You can be afraid and brave at the same time.",
        ],
        "closing": CLOSINGS,
    },
    wishes=["{aK} who was afraid of {X}", "{aK} who was not brave", "being brave"],
    answers={
        "problem": ["{N} was afraid of {X}.", "The problem was that {N} was afraid of {X}."],
        "ending": ["In the end, {N} was not afraid of {X} anymore.", "The {G} helped {N} to be brave."],
        "lesson": ["{N} learned that to be brave is to try, even with a shaking heart."],
    },
)

ASTRAY: Final = Plot(
    name="astray",
    objects=TOYS,
    colors=COLORS,
    stages={
        "opening": OPENINGS,
        "scene": SCENES,
        "own": OWNS,
        "+problem": [
            "{When}, {N} walked too far from home with the {O}. Fog came up, and {he} lost {his} way.",
            "{When}, {N} walked too far from home. Then {he} did not know the way back.",
            "{When}, {N} walked too far with the {O}. Soon {he} could not find the way home.",
        ],
        "sorrow": SORROWS,
        "attempt": [
            "{He} went left, and {he} went right, but {he} came back to the same stone.",
            "{He} called for help, but only the wind answered.",
            "{N} climbed up high to look around, but all {he} saw was fog.",
            "{He} walked and walked until {his} feet were tired.",
        ],
        "signal": [
            "Then {he} held up the {C} {O}, so that someone might see it.",
            "{N} held the {O} close and waited.",
            '"At least I have you," {he} said to the {O}.',
        ],
        "+meeting": MEETINGS,
        "question": QUESTIONS,
        "tell": [
            '"I cannot find my way home," said {N}.',
            '"I lost my way," {he} said. "Do you know how I can get back to the {P}?"',
            "{N} told the {G} about the long way and the fog.",
        ],
        "help": [
            '"I know every path here," said the {G}. "Follow me."',
            '"Your home is not far," said the {G}. "Come, I will show you the way."',
            '"I can smell the {P} from here," said the {G}. "Stay close to me."',
        ],
        "+resolve": [
            "They went past a mill and over a bridge, and there was the {P}!",
            "They walked side by side and took turns to carry the {O}. Soon {N} saw the {P}.",
            "They followed the little stream, and at last {N} knew where {he} was.",
        ],
        "thanks": THANKS,
        "ending": [
            "{N} was home again, and {he} put the {O} next to the bed.",
            "{N} was safe at home with the {C} {O}.",
            "{N} was home at last. {He} gave the {G} the {O} as a gift.",
        ],
        "lesson": [
            "{N} learned to look well at the path before {he} goes far.",
            "{He} learned that there is no shame in asking the way.",
            "If you do not know the way, ask someone kind.",
        ],
        "closing": CLOSINGS,
    },
    wishes=["{aK} who walked too far", "{aK} who walked too far from home", "{aK} far from home"],
    answers={
        "problem": ["{N} lost {his} way.", "{N} could not find the way home."],
        "ending": ["In the end, {N} was home again.", "The {G} showed {N} the way home."],
        "lesson": ["{N} learned that there is no shame in asking the way."],
    },
)

RESCUE: Final = Plot(
    name="rescue",
    objects=LONG,
    colors=COLORS,
    stages={
        "opening": OPENINGS,
        "scene": SCENES,
        "+problem": [
            "{When}, {N} heard a cry. {AB} {G} was stuck {V}.",
            "{When}, {N} went out and heard someone call for help. It was {aB} {G}, who was stuck {V}.",
            '{When}, {aB} {G} fell and was stuck {V}. "Help!" cried the {G}.',
        ],
        "question": [
            '"Do not be afraid!" called {N}. "I will help you."',
            '"What happened?" asked {N}. "I did not look where I was going," said the {G}.',
            '"Please help me," said the {G}. "I cannot get out."',
            '"I am coming!" cried {N}, and {he} ran as fast as {he} could.',
        ],
        "attempt": [
            "{N} pulled as hard as {he} could, but the {G} did not move.",
            "{He} reached out, but the {G} was too far away.",
            "{N} looked for someone strong, but nobody was near.",
            "{He} called the others, but it was too far for them to hear.",
        ],
        "+help": [
            "Then {N} had an idea. {He} ran home and came back with {aC} {O}.",
            '"I know!" said {N}. {He} found {aC} {O}. "Hold on to the other end!"',
            'Not far away lay {aC} {O}. "This will help," {he} said, and held out one end.',
        ],
        "resolve": [
            "The {G} held the {O} tight, and {N} pulled and pulled. Plop! The {G} was free.",
            "{N} pulled with all {his} might. Bit by bit, the {G} came out.",
            "One, two, three! {N} pulled at the {O}, and out came the {G}.",
        ],
        "thanks": [
            '"You saved me!" said the {G}. "Thank you, {N}."',
            'The {G} gave {N} a big hug. "I will never forget it," it said.',
            '"How can I thank you?" asked the {G}. "Be my friend," said {N}.',
        ],
        "ending": [
            "The {G} was safe, and the {O} was only a little dirty.",
            "The {G} was not stuck anymore, and {N} was very proud.",
            "Everyone heard how {N} saved the {G} with the {C} {O}.",
        ],
        "lesson": [
            "{N} learned that even a small one can help a lot.",
            "{He} learned that a good idea is better than strong arms.",
            "Help others when they need you.",
        ],
        "closing": CLOSINGS,
    },
    wishes=["{aK} who saved a friend", "{aK} who helped {aG}", "{aG} who was stuck {V}"],
    answers={
        "problem": ["The {G} was stuck {V}.", "The problem was that the {G} was stuck {V}."],
        "ending": ["In the end, {N} saved the {G} with the {O}.", "{N} pulled the {G} out with the {C} {O}."],
        "lesson": ["{N} learned that even a small one can help a lot."],
    },
)
