"""Questions about a story that was told, and their answers. Slots as in lexicon.SLOTS."""

from __future__ import annotations

from typing import Final

from .common import Lines
from .lexicon import words

Talk = tuple[Lines, Lines]

# Topics whose answers are the plot's own (Plot.answers).
TOPICS: Final[dict[str, Lines]] = {
    "problem": [
        "What was the problem?", "What is the problem in the story?", "What went wrong?",
        "What happened to {N}?",
        "Why was {N} sad?", "What happened?", "What was the problem of {N}?", "What happened in the story?",
        "What was wrong?", "Why was {N} not happy?", "What was the trouble?",
    ],
    "ending": [
        "How did it end?", "How does the story end?", "What happened in the end?", "How did the story end?",
        "How was the problem solved?", "What happened at the end?", "How does it end?",
        "What is the end of the story?",
        "And then?", "What happened next?", "How did {N} solve the problem?",
    ],
    "lesson": [
        "What did {N} learn?", "What is the lesson of the story?", "What can we learn from it?",
        "What is the moral of the story?", "What is the moral?", "What did the hero learn?",
        "What is the lesson?",
        "What can I learn from the story?", "What does the story teach us?", "What did {he} learn?",
    ],
    "where": ["Where was the {O}?", "Where was it?"],
}  # fmt: skip

WHERE: Final[Talk] = (
    ["Where did it happen?", "Where did the story happen?", "Where does {N} live?", "Where did {N} live?",
     "Where was that?", "Where does the story take place?", "Where did {he} live?",
     "Where does the hero live?",
     "Where did the hero live?", "What is the setting of the story?", "Where is {N}'s home?",
     "Where does the {K} live?", "Where did the {K} live?", "What place was it?",
     "Where does the story happen?"],
    ["It happened {at} {aD} {P}.", "{N} lived {at} {aD} {P}."],
)  # fmt: skip
ALL_PLOTS: Final[list[Talk]] = [
    (
        ["Who is the hero of your story?", "Who is the story about?", "Who is the main character?",
         "What is the name of the hero?", "What was the hero called?", "Who is it about?",
         "Who was the hero?",
         "Who is the hero?", "Who is the hero of the story?", "What is the story about?",
         "What is the hero's name?",
         "Who was the story about?", "What is the main character's name?", "What is your story about?"],
        ["The hero is {N}, {aA} {K}.", "The hero of the story is {N}, {aA} {K}.",
         "It is about {aA} {K} named {N}."],
    ),
    (
        ["Who is {N}?", "What is {N}?", "Who was {N}?", "What kind of animal is {N}?", "What was {N}?",
         "What kind of hero is {N}?", "Tell me about {N}."],
        ["{N} is {aA} {K}.", "{N} is {aA} {K} who lives {at} {aD} {P}."],
    ),
    (
        ["What is the name of the {K}?", "What was the name of the {K}?", "What is the {K} called?",
         "What is the {K}'s name?", "What was the {K} called?"],
        ["The name of the {K} is {N}.", "The {K} is called {N}."],
    ),
    WHERE,
    (
        ["Who is the {G}?", "What is the {G} like?", "What was the {G} like?", "Tell me about the {G}."],
        ["It is {aB} {G}.", "The {G} is {aB} {G} that {N} met."],
    ),
    (
        ["What is the title of your story?", "What is the story called?", "What is the title of the story?",
         "What is the name of the story?", "Does the story have a title?"],
        ["The story is called {N} and the {C} {O}.", "It is called {N} and the {C} {O}."],
    ),
    (
        ["Did it end well?", "Was {N} happy in the end?", "Is there a happy ending?",
         "Does the story end well?",
         "Was there a happy ending?", "Did the story have a happy ending?", "Was everyone happy in the end?"],
        ["Yes, in the end {N} was happy.", "Yes, it ended well for {N} and the {G}."],
    ),
    (
        ["How did {N} feel?", "How does {N} feel?", "Was {N} sad?", "How did the hero feel?",
         "How did {he} feel?",
         "Was {N} happy?"],
        ["{N} was not happy at first, but in the end all was well."],
    ),
    (
        ["Who are the characters?", "Who is in the story?", "Who else is in the story?",
         "Which characters are there?",
         "Who are the characters in the story?", "How many characters are there?"],
        ["There are {N}, {aK}, and {aG}."],
    ),
    (
        ["Did you like the story?", "Do you like {N}?", "Do you like the story?", "Do you like your story?"],
        ["Yes, I like {N} very much.", "Yes, and I like {N} and the {G} very much."],
    ),
    (
        ["When did it happen?", "When did the story happen?", "When was that?"],
        ["It happened {when}.", "It happened once upon a time, {when}."],
    ),
]  # fmt: skip

HELPER: Final[list[Talk]] = [
    (
        ["Who helped {N}?", "Who helped the {K}?", "Who helped the hero?", "Who helped {him}?",
         "Did anyone help {N}?",
         "Who was the helper?", "Did {N} get help?", "Who is the friend of {N}?", "Who helped?"],
        ["The {G} helped {N}.", "It was {aB} {G}."],
    ),
    (
        ["How did the {G} help?", "What did the {G} do?", "How did the {G} help {N}?"],
        ["The {G} was kind and helped {N}."],
    ),
]  # fmt: skip
OWNER: Final[list[Talk]] = [
    (
        ["What did {N} have?", "What did {N} love?", "What was the treasure of {N}?",
         "What did {N} like best?",
         "What did the {K} have?", "What did the hero have?"],
        ["{N} had {aC} {O}.", "{N} loved {his} {C} {O}."],
    ),
]  # fmt: skip
LOST_NOTHING: Final[list[Talk]] = [(["What did {N} lose?", "What was lost?"], ["{N} did not lose anything."])]
MET: Final[Talk] = (
    ["Who came?", "Who came by?", "Who did {N} meet?", "Whom did {he} meet?", "Who is the other one?"],
    ["{N} met {aG}.", "It was the {G}.", "It was {aG}."],
)
COLOR: Final[Talk] = (
    ["What color was the {O}?", "What color is the {O}?", "Which color did the {O} have?",
     "What did the {O} look like?",
     "What was the color of the {O}?"],
    ["The {O} was {C}.", "It was {C}."],
)  # fmt: skip
LOOK: Final[Talk] = (
    ["What was the {O} like?", "What kind of {O} was it?", "What did the {O} look like?"],
    ["It was {aC} {O}."],
)

BY_PLOT: Final[dict[str, list[Talk]]] = {
    "lost": [
        (["What did {N} lose?", "What was lost?", "What did the {K} lose?", "What did the hero lose?",
         "What did {he} lose?"],
         ["{N} lost {his} {C} {O}.", "{N} lost {aC} {O}."]),
        (["Who found the {O}?", "Where did they find it?", "Where did {N} find the {O}?",
         "Where did they find the {O}?"],
         ["They found the {O} {U}.", "{N} and the {G} found it {U}."]),
        (["Where did {N} look?", "Where did {N} look first?", "Where did {he} look first?"],
         ["{N} looked {S}.", "First {N} looked {S}."]),
    ],
    "stuck": [
        (["What got stuck?", "What was stuck?", "What did {N} want to reach?"],
         ["The {O} got stuck {W}."]),
        (["Where did it get stuck?", "Where was it stuck?", "Where did the {O} get stuck?"],
         ["It got stuck {W}."]),
    ],
    "broken": [
        (["What broke?", "What was broken?", "What did {N} break?"], ["It was the {C} {O}.",
         "It was the {O}."]),
        (["Who fixed the {O}?", "Who fixed it?"], ["{N} and the {G} fixed it together."]),
    ],
    "taken": [
        (["Who took the {O}?", "Who took it?", "Who was the thief?"], ["The {G} took the {O}.",
         "It was the {G}."]),
        (["What was taken?", "What did the {G} take?"], ["The {G} took the {C} {O}."]),
        (["Why did the {G} take the {O}?", "Why did the {G} take it?"], ["The {G} wanted to have {aO} too."]),
    ],
    "lonely": [
        (["Why was {N} lonely?", "Was {N} lonely?"], ["{N} had no friend to play with."]),
        (["Who became a friend of {N}?", "Who is the friend of {N}?", "Did {N} find a friend?",
         "Who is the new friend?"],
         ["The {G} became a friend of {N}."]),
        (["What did they play with?"], ["They played with the {C} {O}."]),
    ],
    "afraid": [
        (["What was {N} afraid of?", "What is {N} afraid of?", "What was the {K} afraid of?",
         "Was {N} afraid?"],
         ["{N} was afraid of {X}."]),
        (["Is {N} still afraid?", "Was {N} afraid in the end?"], ["No, {N} is not afraid of {X} anymore."]),
    ],
    "astray": [
        (["Did {N} come home?", "Did {N} find the way home?", "How did {N} get home?", "Did {he} get home?"],
         ["Yes, the {G} showed {N} the way home."]),
        (["What did {N} lose?", "What did the {K} lose?"], ["{N} lost {his} way."]),
    ],
    "rescue": [
        (["Who was stuck?", "Who needed help?", "Who called for help?"], ["The {G} was stuck {V}."]),
        (["How did {N} save the {G}?", "How did {N} help the {G}?", "What did {N} use?"],
         ["{N} pulled the {G} out with the {O}."]),
        (["Who saved the {G}?", "Who helped the {G}?", "Who helped?"], ["{N} saved the {G}.", "It was {N}."]),
    ],
    "share": [
        (["What did {N} not want to share?", "What did the {G} want?", "What did they share?"],
         ["It was the {C} {O}."]),
        (["Did {N} say sorry?", "Was {N} sorry?"], ["Yes, {N} was sorry and shared the {O} with the {G}."]),
    ],
    "gift": [
        (["What was the gift?", "What did {N} make?", "What did {N} give to the {G}?",
          "What did the {G} get?"],
         ["{N} made {aC} {O} for the {G}.", "The gift was {aC} {O}."]),
        (["Whose birthday was it?", "Who had a birthday?"], ["It was the birthday of the {G}."]),
    ],
    "truth": [
        (["What did {N} break?", "What broke?", "What was broken?"], ["{N} broke the {C} {O} of the {G}."]),
        (["Where did {N} hide it?", "Where did {N} hide the {O}?", "Where did {he} hide it?"],
         ["{N} hid it {U}."]),
        (["Did {N} tell the truth?", "Did {N} lie?"],
         ["At first {N} told a lie, but then {he} told the truth."]),
    ],
    "music": [
        (["What did {N} want to play?", "What did {N} play?"], ["{N} wanted to play the {C} {O}.",
         "It was the {O}."]),
        (["How did {N} learn it?", "How did {N} learn to play?"], ["{N} practiced every day."]),
    ],
    "garden": [
        (["What did {N} plant?", "What did {N} grow?", "What did {N} want to grow?", "What grew?"],
         ["{N} planted a seed to grow {aC} {O}.", "It was {aC} {O}."]),
        (["What does a seed need?", "Why did it not grow?"], ["A seed needs water, sun and time."]),
    ],
}  # fmt: skip
WITH_HELPER: Final = ("lost", "stuck", "broken", "afraid", "astray", "music", "garden")
WITHOUT_OWNER: Final = ("gift", "truth", "garden", "rescue")

WISHES: Final[Lines] = [
    "{aK}", "{aK}", "{aK}", "{aA} {K}", "{aK} named {N}", "{aK} called {N}", "{N}", "{N} the {K}",
    "{aK} and {aG}",
    "{aK} and {aO}", "{aO}", "{aC} {O}", "{N} and {aG}", "{aK} {at} the {P}", "{aA} {K} named {N}", "friends",
    "animals", "something nice", "{aA} {K} {at} {aD} {P}", "{aK} and {his} friend", "{N}, {aA} {K}",
    "the {P}",
]  # fmt: skip
# Heroes and things the storyteller knows nothing of.
STRANGE_WISHES: Final = words(
    "dinosaur car train whale shark astronaut ghost zombie vampire superhero policeman doctor spaceship "
    "phone camel giraffe zebra ant spider snake crocodile fish dolphin mermaid ninja pirate soldier baker"
)
ASKS_FOR: Final = [
    "Tell me a story about {}.", "Tell me a story about {}.", "Can you tell me a story about {}?",
    "Please tell me a story about {}.", "I want a story about {}.", "Write a story about {}.",
    "A story about {}.",
    "Do you know a story about {}?", "Tell a short story about {}.", "I would like to hear a story about {}.",
    "Tell me something about {}.", "Write a short story about {}.", "Make up a story about {}.",
    "Could you tell me a story about {}?", "Give me a story about {}.", "Tell me about {}.", "Story about {}",
    "Once more, please: a story about {}.", "Now tell me a story about {}.", "Write me a story about {}.",
]  # fmt: skip
BEGINNINGS: Final = [
    "Begin a story about {}.", "How does a story about {} begin?", "Only the beginning: a story about {}.",
    "Begin a story: {}.", "The first lines of a story about {}, please.", "And how does one about {} begin?",
]  # fmt: skip
ASKS: Final = [
    "Tell me a story.", "Tell me a story.", "Can you tell me a story?", "Please tell me a story.",
    "I want a story.",
    "Write a story.", "A story, please.", "Tell a story.", "Do you know a story?", "Tell me a short story.",
    "I would like to hear a story.", "Tell me a bedtime story.", "Story, please!", "Can you tell a story?",
    "Could you tell me a story?", "Yes, please.", "Yes!", "Tell me something.", "Write a short story.",
    "Yes, tell me a story.", "Once upon a time", "Tell me a fairy tale.", "Make up a story.",
    "Read me a story.",
]  # fmt: skip
MORE: Final = [
    "Tell me another story.", "Another one, please!", "Tell me one more.", "One more story, please.",
    "Another story!",
    "Do you know another story?", "More!", "And another one?", "Can you tell me another story?",
    "Tell me a new story.",
]  # fmt: skip
STRANGE_LEADS: Final = ["I do not know a story about that, but I know this one.", "I know another story."]
SYSTEM: Final = [
    "You are a storyteller.", "You tell stories to children.", "You are a helpful assistant.",
    "You are a friendly storyteller for children.", "Tell short stories and answer questions about them.",
    "You are a little storyteller.", "Answer in short sentences.",
]  # fmt: skip
