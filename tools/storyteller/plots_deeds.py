"""Plots about something to do well: to share, to give, to tell the truth, to practice, to wait."""

from __future__ import annotations

from typing import Final

from .common import CLOSINGS, MEETINGS, OPENINGS, OWNS, QUESTIONS, SCENES, SORROWS, THANKS, Plot
from .lexicon import COLORS, MADE, MUSIC, PLANT_TRAITS, PLANTS, TOYS

SHARE: Final = Plot(
    name="share",
    objects=TOYS,
    colors=COLORS,
    stages={
        "opening": OPENINGS,
        "scene": SCENES,
        "own": OWNS,
        "+problem": [
            "{When}, {N} did not want to share the {O} with {aB} {G} who came by.",
            "{AB} {G} wanted to see the {O} too. But {N} did not want to share it.",
            "But {N} did not want to share the {O} with anyone, not even with {aB} {G} from next door.",
        ],
        "sorrow": [
            "",
            "The {G} went away with a sad face.",
            '"That is not nice," said the {G}, and it walked away.',
            "The {G} said nothing, but a tear ran down its cheek.",
        ],
        "attempt": [
            "{N} played alone with the {C} {O}, but soon it was no fun.",
            "{N} took the {O} and sat down {S}. It was quiet there, much too quiet.",
            "Now {N} had the {O} all alone, but {he} was not happy.",
            "{He} hid the {O} {S}, but that was no fun at all.",
        ],
        "+thought": [
            "{He} thought of the sad face of the {G}.",
            '"Why am I not happy?" {he} asked. Then {he} thought of the {G}.',
            'A little bird sang, "It is more fun if you share it."',
            "That night, {N} could not sleep. {He} thought of the {G} all the time.",
        ],
        "resolve": [
            'So {N} ran to the {G} and said, "I am sorry. Would you like to play with my {O}?"',
            '{N} went to see the {G}. "I was not nice to you," {he} said. "Let us share the {O}."',
            'The next day, {N} brought the {C} {O} to the {G}. "Today it is your turn," {he} said.',
        ],
        "thanks": [
            '"Yes, please!" said the {G}, and it smiled again.',
            "The {G} was so happy that it jumped up and down.",
            '"Thank you, {N}!" said the {G}. "I know a good game for two."',
        ],
        "ending": [
            "They shared the {O} all day, and it was more fun than ever.",
            "From then on, they took turns with the {O}, and both were happy.",
            "Now {N} liked to share the {O} with the {G}.",
        ],
        "lesson": [
            "{N} learned that things are more fun when you share them.",
            "{He} learned that a friend is better than any treasure.",
            "What you share makes you twice as happy.",
        ],
        "closing": CLOSINGS,
    },
    wishes=["{aK} who did not want to share", "{aK} who learned to share", "sharing"],
    answers={
        "problem": [
            "{N} did not want to share the {O}.",
            "The problem was that {N} did not share the {C} {O}.",
        ],
        "ending": [
            "In the end, {N} and the {G} shared the {O}.",
            "{N} said sorry and shared the {O} with the {G}.",
        ],
        "lesson": ["{N} learned that things are more fun when you share them."],
    },
)

GIFT: Final = Plot(
    name="gift",
    objects=MADE,
    colors=COLORS,
    stages={
        "opening": OPENINGS,
        "scene": SCENES,
        "+problem": [
            "{When}, it was the birthday of {aB} {G}. But {N} had no gift!",
            "{N} had a good friend, {aB} {G}. It was the birthday of the {G}, and {N} had no gift.",
            "{AB} {G} asked {N} to come to a birthday party. But {N} had no gift and no money.",
        ],
        "sorrow": SORROWS,
        "attempt": [
            "{He} looked {S} for something nice, but {he} found only {J}.",
            "{He} tried to make a cake, but it came out black.",
            "{He} went to the shop, but everything cost too much.",
            "{N} picked some flowers, but a goat ate them all.",
        ],
        "+thought": [
            "Then {he} saw some paper, wood and wool, and {he} had an idea.",
            '"If I cannot buy a gift, I can make one," {he} said.',
            '{His} {R} said, "Make something with your own hands."',
        ],
        "make": [
            "{N} worked all day, and in the evening {he} had made {aC} {O}.",
            "{He} cut, and {he} tied, and {he} painted. In the end there was {aC} {O}!",
            "It took a long time, but at last {aC} {O} was ready.",
        ],
        "+resolve": [
            "{N} went to the party and gave the {O} to the {G}.",
            '"Happy birthday!" said {N} and gave the {G} the {C} {O}.',
            'At the party, the {G} opened the gift. "What a beautiful {O}!" it cried.',
        ],
        "thanks": [
            '"Did you make this for me?" asked the {G}. "It is the best gift of all!"',
            "The {G} hugged {N} and did not let go for a long time.",
            '"Thank you, {N}!" said the {G}. "I love it."',
        ],
        "ending": [
            "The {G} took the {O} along everywhere.",
            "{N} was happy, because the {G} loved the gift.",
            "Of all the gifts, the {G} liked the {O} best.",
        ],
        "lesson": [
            "{N} learned that the best gifts come from the heart.",
            "{He} learned that a gift does not need money.",
            "A gift you make with love is the best gift.",
        ],
        "closing": CLOSINGS,
    },
    wishes=["a birthday gift", "{aK} who made a gift for {aG}", "{aK} who made {aO}"],
    answers={
        "problem": ["{N} had no gift for the {G}.", "It was the birthday of the {G}, and {N} had no gift."],
        "ending": [
            "In the end, the {G} loved the {C} {O}.",
            "{N} made {aO} for the {G}, and the {G} loved it.",
        ],
        "lesson": ["{N} learned that the best gifts come from the heart."],
    },
)

MUSIC_PLOT: Final = Plot(
    name="music",
    objects=MUSIC,
    colors=COLORS,
    stages={
        "opening": OPENINGS,
        "scene": SCENES,
        "own": [
            "{N} had {aC} {O}, and {he} wanted to play it well.",
            "{His} {R} gave {him} {aC} {O} to make music.",
            "Of all the sounds, {he} liked the sound of {his} {C} {O} best.",
            "{N} dreamed of music, and {he} had {aC} {O}.",
        ],
        "+problem": [
            "{N} wanted to play the {O} at the summer party, but every note was wrong.",
            "Soon there would be a big party. {N} wanted to play the {O}, but {he} could not.",
            "{When}, {N} tried to play a song on the {O}. It sounded so bad that the birds flew away.",
        ],
        "sorrow": SORROWS,
        "attempt": [
            "{He} played louder, but that made it worse.",
            "{He} played for one hour, and then {he} threw the {O} {S}.",
            "{He} played very fast, and all the notes fell over each other.",
            '"I will never learn it," said {N}, and {he} put the {O} away.',
        ],
        "+meeting": MEETINGS,
        "question": QUESTIONS,
        "tell": [
            '"I cannot play the {O}," said {N}.',
            '"I want to play my {O} for everyone," said {N}, "but it sounds bad."',
            "{N} showed the {G} the {O} and played a sad little note.",
        ],
        "help": [
            '"Play one note, and play it slowly," said the {G}. "And then play it again, every day."',
            '"I could not play at first either," said the {G}. "We will practice together."',
            '"Nobody can do it on the first day," said the {G}. "Let me teach you a small song."',
        ],
        "+resolve": [
            "So {N} practiced every day. After some weeks, the {O} sounded sweet and clear.",
            "They practiced in the morning, and they practiced at night. Slowly, the notes became a song.",
            "Day after day, {N} played the {C} {O}. Each day it sounded a little better.",
        ],
        "ending": [
            "At the party, {N} played the {O}, and everyone clapped.",
            "Then {N} played a whole song on the {C} {O}, and even the birds came back to listen.",
            "When {N} played the {O} for everyone, the {G} danced, and all the others danced too.",
        ],
        "thanks": THANKS,
        "lesson": [
            "{N} learned that you must practice to get better.",
            "{He} learned not to give up too soon.",
            "Great things are learned one small step at a time.",
        ],
        "closing": CLOSINGS,
    },
    wishes=["{aK} who wanted to play {aO}", "{aK} who learned to play the {O}", "music"],
    answers={
        "problem": ["{N} could not play the {O}.", "{N} wanted to play the {C} {O}, but it sounded bad."],
        "ending": ["In the end, {N} played the {O} well.", "{N} practiced and played the {O} for everyone."],
        "lesson": ["{N} learned that you must practice to get better."],
    },
)

GARDEN: Final = Plot(
    name="garden",
    objects=PLANTS,
    colors=PLANT_TRAITS,
    stages={
        "opening": OPENINGS,
        "scene": SCENES,
        "own": [
            "{N} dreamed of {aO}. So {he} put a seed into the ground.",
            '{His} {R} gave {him} a seed. "This will be {aO}," {he} thought, and {he} planted it.',
            "In spring, {N} planted one small seed. {He} wanted to grow {aO}.",
        ],
        "+problem": [
            "{N} waited for an hour, but nothing came up.",
            "{When}, {N} went to look. There was no {O}. There was only brown earth.",
            "Every day {he} looked for the {O}, but nothing grew.",
        ],
        "sorrow": SORROWS,
        "attempt": [
            '"Grow!" {he} shouted at the ground. But the seed did not grow.',
            "{He} dug the seed up, looked at it, and put it back again.",
            "{N} danced around it and sang to it. Nothing happened.",
            "{He} put a lamp next to it, but that did not help.",
        ],
        "+meeting": MEETINGS,
        "question": QUESTIONS,
        "tell": [
            '"My {O} does not grow," said {N}.',
            '"I planted a seed," {he} said, "but there is no {O}."',
            "{N} showed the {G} the place where the seed was.",
        ],
        "help": [
            '"A seed needs water, sun and time," said the {G}. "You must wait."',
            '"Give it some water every day," said the {G}, "and do not dig it up."',
            '"{AO} does not grow in one day," said the {G}. "Let us water it together."',
        ],
        "+resolve": [
            "So they watered the seed every day and waited. First there was one leaf, and then two.",
            "The sun shone, and the rain fell. One day, something green looked out of the earth.",
            "{N} watered it and waited for many days. Then a green tip came up.",
        ],
        "grown": [
            "It grew and grew until it was {aC} {O}.",
            "At the end of summer, there stood {aC} {O}.",
            "Week by week it grew, and at last there was {aC} {O}!",
        ],
        "thanks": THANKS,
        "ending": [
            "Everyone came to see the {O} that {N} had grown.",
            "{N} had grown the best {O} of all.",
            "{N} showed the {O} to everyone and was very proud.",
        ],
        "lesson": [
            "{N} learned that good things need time.",
            "{He} learned to wait.",
            "Good things grow slowly.",
        ],
        "closing": CLOSINGS,
    },
    wishes=["{aK} who planted a seed", "{aK} who wanted to grow {aO}", "{aC} {O}", "a garden"],
    answers={
        "problem": ["The {O} did not grow.", "{N} planted a seed, but nothing grew."],
        "ending": ["In the end, there was {aC} {O}.", "{N} waited, and the {O} grew."],
        "lesson": ["{N} learned that good things need time."],
    },
)
