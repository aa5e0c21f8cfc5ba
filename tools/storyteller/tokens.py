"""The vocabulary: SentencePiece BPE with byte fallback, trained on the corpus; documents -> ids; drills."""

from __future__ import annotations

import io
import random
import string
from collections.abc import Collection, Iterable
from itertools import chain

import sentencepiece

from .chat import Message
from .corpus import documents
from .lexicon import COLORS, PLACES, PLOT_WORDS, SLOTS, VARIABLES

VOCAB_SIZE = 2048
ROLES = ("system", "user", "assistant")
SPECIALS = [*(f"<|{role}|>" for role in ROLES), "<|end|>"]
N_DOCUMENTS = 6000
REPEATED = 3.0  # weight of a name, a thing, a pronoun, ... that was said before
RARELY_REPEATED = 8.0  # of a place or a color: stories come back to them far less often
DECIDED = 4.0  # of the line that tells the plot that was wished for
PRONOUNS = frozenset(w for forms in SLOTS.values() if forms[0].endswith("gender") for w in forms[1].values())
FUNCTION_WORDS = frozenset(("a", "an", "the", "of", "in", "on", "to"))
Document = tuple[list[int], list[int], list[float]]  # ids, the id after each, how much it counts


def train_vocabulary(seed: int) -> bytes:
    """A serialized sentencepiece.ModelProto. No dummy prefix: a text begins with its first word."""
    rng, lines = random.Random(seed), []
    for document in documents(rng, N_DOCUMENTS):
        texts = [document] if isinstance(document, str) else [message.text for message in document]
        lines += [line for text in texts for line in text.split("\n") if line]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCAB_SIZE,
        byte_fallback=True,
        control_symbols=SPECIALS,
        required_chars=string.ascii_letters + string.digits + string.punctuation,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        num_threads=1,  # the same bytes each time
        minloglevel=2,
    )
    return model.getvalue()


class Encoder:
    """Documents -> ids, targets and their weights: 0 where the model need not know what comes."""

    def __init__(self, model: bytes) -> None:
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self._id = self.processor.piece_to_id
        values = {value for variable in VARIABLES.values() for text in variable for value in text.split()}
        facts = self._pieces((values | PRONOUNS | {*PLOT_WORDS}) - FUNCTION_WORDS) - self._pieces(
            FUNCTION_WORDS
        )
        self._weights = dict.fromkeys(facts, REPEATED) | dict.fromkeys(
            self._pieces((*PLACES, *COLORS)), RARELY_REPEATED
        )

    def story(self, text: str) -> Document:
        """BOS text EOS"""
        p = self.processor
        ids = [p.bos_id(), *p.encode(text), p.eos_id()]
        return self._document(ids, [1.0] * len(ids))

    def chat(self, messages: Iterable[Message]) -> Document:
        """BOS and for each message: <|role|> newline text <|end|> newline, as the chat template does."""
        newline = self.processor.encode("\n")
        ids, least = [self.processor.bos_id()], [0.0]
        for message in messages:
            head = [self._id(f"<|{message.role}|>"), *newline]
            before, decided, after = message.text.partition(message.decided or "\0")
            parts = [self.processor.encode(part) for part in (before, decided, after)]
            learns = float(message.role == "assistant")
            ids += [*head, *chain(*parts), self._id("<|end|>"), *newline]
            known = [
                *([learns] * len(parts[0])),
                *([DECIDED] * len(parts[1])),
                *([learns] * (len(parts[2]) + 1)),
            ]
            least += [0.0] * len(head) + known + [0.0] * len(newline)
        return self._document(ids, least)

    def document(self, document: str | list[Message]) -> Document:
        """A story or a chat."""
        return self.story(document) if isinstance(document, str) else self.chat(document)

    def drill(self, rng: random.Random) -> Document:
        """BOS and a few random pieces again and again, in any order or always the same one.

        Nothing but what was said before helps here, so heads learn to look back and to copy.
        """
        p = self.processor
        first = p.piece_to_id("<0xFF>") + 1  # what comes before are control symbols and bytes
        pieces = rng.choices(range(first, p.vocab_size()), k=rng.randint(1, 8))
        n = rng.randint(12, 48)
        body = rng.choices(pieces, k=n) if rng.random() < 0.5 else (pieces * n)[:n]
        return [p.bos_id(), *body[:-1]], body, [1.0] * n

    def _pieces(self, words: Collection[str]) -> frozenset[int]:
        encoded = self.processor.encode([*words, *(f" {word}" for word in words)])
        return frozenset(i for ids in encoded for i in ids)

    def _document(self, ids: list[int], least: list[float]) -> Document:
        """`least`: the weights of pieces that do not repeat a fact. What was said of hero, friend, place or
        thing counts more when it is said again, by whomever: most other words of a document are free choices,
        and there is nothing to be learned from those."""
        said: set[int] = set()
        weights = []
        for i, weight in zip(ids, least, strict=True):
            weights.append(max(weight, self._weights.get(i, 0.0)) if i in said else weight)
            said.add(i)
        return ids[:-1], ids[1:], weights[1:]
