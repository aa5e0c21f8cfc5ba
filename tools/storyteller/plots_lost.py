"""Plots about a thing that is gone: lost, stuck, broken, taken."""

from __future__ import annotations

from typing import Final

from .common import CLOSINGS, MEETINGS, OPENINGS, OWNS, QUESTIONS, SCENES, SORROWS, THANKS, Plot
from .lexicon import COLORS, TOYS

LOST: Final = Plot(
    name="lost",
    objects=TOYS,
    colors=COLORS,
    stages={
        "opening": OPENINGS,
        "scene": SCENES,
        "own": OWNS,
        "+problem": [
            "{When}, {N} lost the {O}. {He} could not find it anywhere.",
            "{When}, {N} lost the {C} {O} on a long walk.",
            "But {when}, {N} lost the {C} {O}. It was gone.",
            "{When}, {N} lost the {O} while {he} was playing.",
            "{When}, {N} lost {his} {C} {O}. It was not there anymore.",
        ],
        "sorrow": SORROWS,
        "attempt": [
            "{He} looked {S}, but the {O} was not there.",
            "First {he} looked {S}. There was no {O}.",
            "{N} searched {S} for a long time, but {he} found only {J}.",
            "{He} ran to look {S}. {He} found {J}, but no {O}.",
            "{He} looked {S}. Then {he} looked again. Nothing!",
        ],
        "+meeting": MEETINGS,
        "question": QUESTIONS,
        "tell": [
            "\"I lost my {C} {O},\" said {N}. \"I cannot find it anywhere.\"",
            "\"My {O} is lost,\" {he} said. \"I looked everywhere, but it was not there.\"",
            "\"I am looking for my {C} {O},\" said {N}. \"Have you seen it?\"",
            "{N} told the {G} about the {O} that was lost.",
        ],
        "help": [
            "\"Let us look together,\" said the {G}. \"Four eyes see more than two.\"",
            "\"I think I saw it on my way,\" said the {G}. \"Come with me!\"",
            "\"Where did you play today?\" asked the {G}. {N} thought hard. Then {he} knew where to look.",
            "\"Do not worry,\" said the {G}. \"I am good at finding things.\"",
            "\"Did you look outside?\" asked the {G}. \"No,\" said {N}, \"I did not.\"",
        ],
        "+resolve": [
            "They went to look {U}, and there was the {C} {O}!",
            "The {G} looked {U} and gave a shout. \"Here is your {O}!\"",
            "Together they searched, and soon {N} found the {O} {U}.",
            "They walked on and on. At last they saw something {U}. It was the {O}!",
        ],
        "thanks": THANKS,
        "ending": [
            "{N} held the {O} tight and smiled. It was not lost anymore.",
            "{N} carried the {C} {O} home, and {he} never lost it again.",
            "From then on, {N} always put the {O} in a safe place.",
            "How good it was to have the {O} back!",
        ],
        "lesson": [
            "{N} learned that lost things are easier to find with a friend.",
            "{He} learned to take good care of {his} things.",
            "When you lose something, do not give up. Look again, and ask a friend.",
        ],
        "closing": CLOSINGS,
    },
    wishes=["{aK} who lost {aO}", "{aK} who lost {aC} {O}", "{aK} who lost {his} {O}", "a lost {O}"],
    answers={
        "problem": [
            "{N} lost {his} {C} {O}.", "The problem was that {N} lost {his} {O}.",
        ],
        "ending": ["In the end, {N} had the {O} back.", "The {G} helped {N} find it.", "The {O} was found."],
        "lesson": ["{N} learned that a friend can help to find lost things."],
        "where": ["The {O} was {U}.", "They found it {U}."],
    },
)  # fmt: skip

STUCK: Final = Plot(
    name="stuck",
    objects=TOYS,
    colors=COLORS,
    stages={
        "opening": OPENINGS,
        "scene": SCENES,
        "own": OWNS,
        "+problem": [
            "{When}, the {O} got stuck {W}. A big bird had dropped it there.",
            "{When}, the {C} {O} got stuck {W}. {N} had thrown it too high.",
            "{When}, the {C} {O} got stuck {W}. A storm had carried it away.",
            "But {when}, the {O} got stuck {W}.",
        ],
        "sorrow": SORROWS,
        "attempt": [
            "{N} jumped and jumped, but {he} could not reach it.",
            "{He} threw a small stone at it, but the {O} did not move.",
            "{He} tried to climb up, but {he} slipped and fell down.",
            "{N} stood on a box, but {he} was still too short.",
            "{He} blew as hard as {he} could, but the {O} stayed where it was.",
        ],
        "+meeting": MEETINGS,
        "question": QUESTIONS,
        "tell": [
            '"My {C} {O} is stuck up there," said {N}. "I cannot reach it."',
            '"Look!" said {N}. "My {O} is stuck, and I am too short."',
            "{N} pointed up at the {O} and told the {G} everything.",
        ],
        "help": [
            '"I have a long ladder at home," said the {G}. Soon it came back with it, and {N} held it tight.',
            '"Stand on my back," said the {G}. "Then you will be tall enough." So {N} climbed up.',
            '"Let us use a long stick," said the {G}. It found one, and they pushed the {O} from below.',
            '"I am a good climber," said the {G}. Up it went, higher and higher.',
        ],
        "+resolve": [
            "Slowly the {O} came loose, and it fell right into the grass.",
            "Bump! Down came the {C} {O}.",
            "A moment later, the {O} was down again.",
            "It took some time, but at last they got the {C} {O} down.",
        ],
        "thanks": THANKS,
        "ending": [
            "{N} was glad to hold the {O} again. It was not stuck anymore.",
            "From then on, {N} was careful with the {O} on windy days.",
            "{N} hugged the {C} {O}, which was safe on the ground.",
        ],
        "lesson": [
            "{N} learned that together we can reach what is too high for one.",
            "{He} learned that it is good to ask for help.",
            "What is too high for one is not too high for two.",
        ],
        "closing": CLOSINGS,
    },
    wishes=["{aK} whose {O} got stuck", "{aO} that got stuck {W}", "{aO} that got stuck"],
    answers={
        "problem": ["The {O} got stuck {W}.", "The {O} was stuck {W}, and {N} could not reach it."],
        "ending": ["In the end, they got the {O} down.", "The {G} helped {N} to get the {O} down."],
        "lesson": ["{N} learned that together we can reach what is too high for one."],
        "where": ["The {O} was {W}.", "It was stuck {W}."],
    },
)

BROKEN: Final = Plot(
    name="broken",
    objects=TOYS,
    colors=COLORS,
    stages={
        "opening": OPENINGS,
        "scene": SCENES,
        "own": OWNS,
        "+problem": [
            "{When}, {N} broke the {O}. It fell down with a loud crash.",
            "{When}, {N} broke the {C} {O}. {He} had tripped over a stone.",
            "But {when}, {N} broke the {O}. Now it was in two pieces.",
            "{When}, {N} broke the {O}. {He} had run too fast and hit a tree.",
        ],
        "sorrow": SORROWS,
        "attempt": [
            "{He} tied it with grass, but it fell apart again.",
            "{He} pushed the pieces together, but they did not stay.",
            "{N} tried to fix it with mud. It only got dirty.",
            "{He} worked on it for an hour, but the {O} was still broken.",
        ],
        "+meeting": MEETINGS,
        "question": QUESTIONS,
        "tell": [
            '"My {C} {O} is broken," said {N}. "I cannot fix it."',
            '"I broke my {O}," {he} said in a low voice, "and it was so pretty."',
            "{N} showed the {G} the pieces of the {O}.",
        ],
        "help": [
            '"I have some glue at home," said the {G}. "Let us fix it together."',
            '"We need some string and a little time," said the {G}. "Hold this end."',
            '"I know how to fix it," said the {G}. "Watch me, and I will show you."',
            '"Do not cry," said the {G}. "What is broken can be fixed."',
        ],
        "+resolve": [
            "They worked all afternoon. At last the {O} was whole again.",
            "The {G} held the pieces, and {N} put them together. Step by step, they fixed the {C} {O}.",
            "It was slow work, but they did not stop. When the sun went down, the {O} was fixed.",
            "Piece by piece, they fixed it, and soon the {O} looked like new.",
        ],
        "thanks": THANKS,
        "ending": [
            "Now the {C} {O} was as good as new.",
            "The {O} was not broken anymore, and {N} laughed with joy.",
            "{N} could use the {O} again, and {he} liked it even more than before.",
        ],
        "lesson": [
            "{N} learned that broken things can be fixed with time and help.",
            "{He} learned to be careful and to stay calm.",
            "Most broken things can be fixed if you work together.",
        ],
        "closing": CLOSINGS,
    },
    wishes=["{aK} who broke {aO}", "{aK} who broke {aC} {O}", "{aK} who broke {his} {O}", "a broken {O}"],
    answers={
        "problem": ["The {O} was broken.", "The problem was that the {O} broke."],
        "ending": ["In the end, the {O} was fixed.", "{N} and the {G} fixed the {C} {O} together."],
        "lesson": ["{N} learned that broken things can be fixed with time and help."],
    },
)

TAKEN: Final = Plot(
    name="taken",
    objects=TOYS,
    colors=COLORS,
    stages={
        "opening": OPENINGS,
        "scene": SCENES,
        "own": OWNS,
        "+problem": [
            "{When}, {aG} took the {C} {O} while {N} was sleeping.",
            "{When}, {aG} took the {O} and ran away with it.",
            "But {when}, {aG} took the {O} away.",
        ],
        "anger": [
            "",
            '"Stop! That is mine!" cried {N}.',
            "{N} was angry and sad.",
            '"Who took my {O}?" asked {N}.',
        ],
        "attempt": [
            "{He} ran after the {G}, but the {G} was too fast.",
            "{He} called and called, but the {G} did not come back.",
            "{N} looked {S}, but the {G} was not there.",
            "{N} asked everyone, but nobody had seen the {G}.",
        ],
        "+meeting": [
            "At last {N} found the {G} {U}. The {G} was sitting there all alone with the {O}.",
            "Then {he} heard someone cry {U}. It was the {G}, with the {O} in front of it.",
            "In the evening, {he} saw the {G} {U}. It looked very lonely.",
        ],
        "question": [
            '"Why did you take my {O}?" asked {N}.',
            '{N} was not angry now. "Why did you take it?" {he} asked.',
            '"That {O} is mine," said {N}. "Why did you take it away?"',
        ],
        "help": [
            'The {G} looked down. "I have no toys," it said, "and I only wanted to play."',
            '"It is so pretty," said the {G}, "and I have nothing like it."',
            '"I am sorry," said the {G}. "I was afraid to ask you."',
            'The {G} turned red. "I wanted to have something nice too," it said.',
        ],
        "+resolve": [
            'The {G} gave the {O} back. "Next time, just ask me," said {N}. "Then we can play together."',
            '"You can play with me," said {N}. The {G} smiled and gave back the {C} {O}.',
            '"Here it is," said the {G}, and it gave the {O} back to {N}. "Let us be friends," said {N}.',
        ],
        "ending": [
            "Now the {O} was back, and {N} had a new friend too.",
            "{N} had the {C} {O} again, and the {G} never took anything without asking.",
            "They played with the {O} until it was dark, and nobody was angry anymore.",
        ],
        "lesson": [
            "The {G} learned that it is better to ask than to take.",
            "{N} learned that it is good to ask why.",
            "It is better to ask than to take.",
        ],
        "closing": CLOSINGS,
    },
    wishes=["{aG} who took {aO}", "{aG} who took the {O} of {aK}", "{aG} who took {aC} {O}"],
    answers={
        "problem": ["The {G} took the {C} {O}.", "The {G} took the {O} of {N}."],
        "ending": [
            "The {G} gave the {O} back, and they became friends.",
            "In the end, {N} had the {O} back.",
        ],
        "lesson": ["The {G} learned that it is better to ask than to take."],
        "where": ["{N} found the {G} and the {O} {U}."],
    },
)
