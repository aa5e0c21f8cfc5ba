"""The words that a story may vary: who, where, with what. Every variable of a story has its values here.

A template is text with slots: "{N} had {aC} {O}." Each slot shows one variable in one form; SLOTS maps it
to the variable and to the text for each value. The generator fills slots, the checker reads them back.
"""

from __future__ import annotations

from typing import Final


def words(text: str) -> list[str]:
    """The words of a text; lists of one word per string take too much room."""
    return text.split()


GENDERS: Final = ("m", "f")
NAMES: Final = {
    "m": words(
        "Tom Ben Max Oscar Finn Leo Hugo Sam Jack Otto Felix Theo Milo Arlo Bruno Casper Emil Gus Henry Ivo "
        "Jasper Karl Louis Ned Paul Rufus Simon Toby Walter Victor"
    ),
    "f": words(
        "Anna Lily Mia Rosa Clara Nora Ella Ruby Ida Emma Greta Hazel Iris Julia Lucy Maya Nell Olga Penny "
        "Polly Sara Tilda Uma Vera Wanda Zoe Alma Betty Cora Daisy"
    ),
}
GENDER_OF: Final = {name: gender for gender, names in NAMES.items() for name in names}

# Any name goes with any kind: a queen called Tom was what a model took longest to unlearn. The friend is an
# animal and has no name: "it" and "the owl" are enough, and what has a name is the hero.
ANIMALS: Final = words(
    "fox rabbit bear mouse owl frog duck hedgehog squirrel cat dog pig goat pony cow turtle otter beaver "
    "lamb goose badger mole deer kitten puppy hen sparrow panda lion elephant monkey penguin dragon wolf "
    "tiger horse unicorn robot snail beetle"
)
KINDS: Final = [*ANIMALS, *words("child giant knight painter farmer shepherd sailor gardener")]
TRAITS: Final = words(
    "little small young kind brave shy cheerful curious clever quiet gentle friendly happy funny lively"
)
FRIEND_TRAITS: Final = words("wise old big gentle friendly tall strong busy merry helpful")

PLACES: Final = {  # place: its preposition
    **dict.fromkeys(words("forest village valley meadow garden town castle wood"), "in"),
    **dict.fromkeys(words("hill farm island mountain beach"), "on"),
    **dict.fromkeys(words("lake river pond sea mill"), "by"),
}
PLACE_TRAITS: Final = words("green quiet sunny old small wide windy lovely peaceful pretty")

COLORS: Final = words("red blue yellow green golden silver orange purple white black pink brown")
# What a hero owns can be lost, taken, shared and broken: which of these happens must not depend on the thing.
TOYS: Final = words(
    "kite boat doll drum flute whistle lantern umbrella basket shell mask puppet clock box cup crown mirror "
    "lamp rattle spoon comb fan"
)
LONG: Final = words("rope scarf blanket belt stick net pole ladder broom")
MADE: Final = words("kite hat scarf boat basket doll blanket drum flute lantern mask crown")
MUSIC: Final = words("drum flute violin trumpet horn whistle harp bell guitar")
PLANTS: Final = words("pumpkin sunflower carrot cabbage melon turnip tomato rose")
PLANT_TRAITS: Final = words("giant huge fine beautiful wonderful big")
OBJECTS: Final = list(dict.fromkeys((*TOYS, *LONG, *MADE, *MUSIC, *PLANTS)))

SPOTS: Final = [  # where a search begins, or something else happens
    "under the bed", "behind the door", "in the kitchen", "behind the barn", "near the well", "on the stairs",
    "under the table", "in the attic",
]  # fmt: skip
HIDEOUTS: Final = [  # where something is found; never a place where one looked before
    "under the old bridge", "behind a big rock", "in the tall grass", "under a bush", "in the mud",
    "beside the path", "under a log", "in a pile of leaves", "behind the fence", "next to a stump",
]  # fmt: skip
# What a wish and a story have in common if the story is the one wished for.
PLOT_WORDS: Final = words(
    "lost stuck broke broken took taken lonely friends friend afraid brave walked far home "
    "saved helped share sharing birthday gift made lie truth play music seed planted grow garden"
)

HEIGHTS: Final = [
    "in a tall tree", "on the roof", "on a high branch", "on top of a tower", "on a high wall",
    "in a big oak",
]  # fmt: skip
TRAPS: Final = ["in a deep hole", "in the mud", "under a fallen tree", "in a thorn bush", "in a narrow ditch"]
FEARS: Final = ["the dark", "thunder", "deep water", "loud noises", "big storms", "shadows", "high places"]
RELATIVES: Final = words("mother father grandmother grandfather aunt uncle sister brother")
TREATS: Final = [
    "apple pie", "honey cake", "berry soup", "warm bread", "pancakes", "cookies", "sweet plums", "nut cake",
]  # fmt: skip
FINDS: Final = [
    "an old shoe", "a dry leaf", "three ants", "a sleepy worm", "some nuts", "a broken pot", "a round stone",
]  # fmt: skip
TIMES: Final = [
    "one morning", "one day", "one afternoon", "one evening", "one sunny day", "one windy day",
    "one autumn day", "one spring morning", "one Sunday",
]  # fmt: skip

VARIABLES: Final[dict[str, list[str]]] = {
    "name": list(GENDER_OF), "gender": list(GENDERS), "kind": KINDS, "trait": TRAITS,
    "friend_kind": ANIMALS, "friend_trait": FRIEND_TRAITS, "place": list(PLACES), "place_trait": PLACE_TRAITS,
    "object": OBJECTS, "color": [*COLORS, *PLANT_TRAITS], "spot": SPOTS, "spot2": HIDEOUTS, "height": HEIGHTS,
    "trap": TRAPS, "fear": FEARS, "relative": RELATIVES, "treat": TREATS, "find": FINDS, "time": TIMES,
}  # fmt: skip


def with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" and not noun.startswith("uni") else f"a {noun}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _slots() -> dict[str, tuple[str, dict[str, str]]]:
    slots: dict[str, tuple[str, dict[str, str]]] = {}

    def add(slot: str, variable: str, texts: dict[str, str]) -> None:
        slots[slot] = (variable, texts)

    plain = {
        "N": "name", "K": "kind", "A": "trait", "G": "friend_kind", "B": "friend_trait",
        "P": "place", "D": "place_trait", "O": "object", "C": "color", "S": "spot", "U": "spot2",
        "W": "height", "V": "trap", "X": "fear", "R": "relative", "Y": "treat", "J": "find", "when": "time",
    }  # fmt: skip
    for slot, variable in plain.items():
        add(slot, variable, {value: value for value in VARIABLES[variable]})
    for slot in "KAGBDOC":
        variable = plain[slot]
        add("a" + slot, variable, {value: with_article(value) for value in VARIABLES[variable]})
    for slot, source in (
        ("AB", "aB"),
        ("AG", "aG"),
        ("AC", "aC"),
        ("AO", "aO"),
        ("When", "when"),
        ("SS", "S"),
        ("UU", "U"),
        ("YY", "Y"),
    ):
        variable, texts = slots[source]
        add(slot, variable, {value: _capital(text) for value, text in texts.items()})
    add("at", "place", PLACES)
    add("At", "place", {place: _capital(at) for place, at in PLACES.items()})
    for male, female in (("he", "she"), ("his", "her"), ("him", "her"), ("himself", "herself")):
        add(male, "gender", {"m": male, "f": female})
        add(_capital(male), "gender", {"m": _capital(male), "f": _capital(female)})
    return slots


SLOTS: Final = _slots()
