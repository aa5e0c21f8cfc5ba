"""The vocabulary: SentencePiece BPE with byte fallback, trained on the corpus; documents -> ids."""

from __future__ import annotations

import io
import random
import string
from collections.abc import Iterable

import sentencepiece

from .chat import Message
from .corpus import documents

VOCAB_SIZE = 2048
ROLES = ("system", "user", "assistant")
SPECIALS = [*(f"<|{role}|>" for role in ROLES), "<|end|>"]
N_DOCUMENTS = 6000
UNTRAINED = -100  # what cross_entropy leaves out


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
    """Documents -> (ids, targets); a target is the next id where the model has to know it."""

    def __init__(self, model: bytes) -> None:
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self._id = self.processor.piece_to_id

    def story(self, text: str) -> tuple[list[int], list[int]]:
        """BOS text EOS"""
        p = self.processor
        ids = [p.bos_id(), *p.encode(text), p.eos_id()]
        return ids[:-1], ids[1:]

    def chat(self, messages: Iterable[Message]) -> tuple[list[int], list[int]]:
        """BOS and for each message: <|role|> newline text <|end|> newline, as the chat template does."""
        newline = self.processor.encode("\n")
        ids, trained = [self.processor.bos_id()], [False]
        for message in messages:
            head = [self._id(f"<|{message.role}|>"), *newline]
            body = [*self.processor.encode(message.text), self._id("<|end|>")]
            ids += head + body + newline
            trained += (
                [False] * len(head) + [message.role == "assistant"] * len(body) + [False] * len(newline)
            )
        targets = [t if known else UNTRAINED for t, known in zip(ids[1:], trained[1:], strict=True)]
        return ids[:-1], targets

    def document(self, document: str | list[Message]) -> tuple[list[int], list[int]]:
        """A story or a chat."""
        return self.story(document) if isinstance(document, str) else self.chat(document)
