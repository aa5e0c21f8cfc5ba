"""LLM: the public object."""

from __future__ import annotations

import operator
import os
import queue
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ._core import KV_BLOCK, KV_DTYPES
from .chat import Conversation, render_chat, template_of
from .cpu import default_threads
from .engine import Engine
from .errors import ContextLengthError, OutOfKVBlocks
from .locate import locate
from .model import Model
from .request import Request, RequestOutput, result
from .sampler import Sampler
from .sampling import SamplingParams, params_from, read_defaults
from .stream import Stream
from .tokenizer import Tokenizer
from .weights import open_model

Prompt = str | Sequence[int]
COMPUTE = ("auto", "f32", "bf16")
QUANTIZE = ("q8_0", "q4_0")


class LLM:
    """A language model in memory, used from any thread.

    model: path of a GGUF file or of a Hugging Face folder, a name `org/repo[:quant]` of the hub, or
    None for the bundled storyteller. n_ctx: tokens per sequence (None: the model's own context).
    n_threads: None takes min(physical cores, affinity, cgroup quota). compute: "auto"; "f32" for
    dequantized weights, float32 activations and KV; or "bf16" for weights and activations in bfloat16,
    which takes two bytes per weight and reads prompts faster where the CPU has AMX. quantize: "q8_0"
    or "q4_0", what weights of 16 or 32 bits become in memory under compute="auto". kv_dtype: "f16",
    "bf16", "f32", "q8_0" or None (f16; f32 under compute="f32"). kv_bytes: budget of the KV cache.
    prefill_chunk: prompt tokens per forward. max_batch: sequences per forward. use_hugepages: ask the
    system for huge pages. use_mlock: keep the weights from being swapped out. prefix_cache: keep KV that
    is no longer in use, as long as there is room, for prompts that begin alike. progress: called in this
    thread with (bytes done, bytes in all) while loading.

    `default_params`: what is sampled by where a call says nothing: what the model recommends.

    Raises FileNotFoundError, ModelLoadError (with UnsupportedModelError) naming file and field,
    InsufficientMemoryError before anything is taken when it cannot fit and when the weights cannot be
    locked, ValueError for an argument.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        compute: str = "auto",
        quantize: str | None = None,
        kv_dtype: str | None = None,
        kv_bytes: int | None = None,
        prefill_chunk: int = 512,
        max_batch: int = 16,
        use_hugepages: bool = True,
        use_mlock: bool = False,
        prefix_cache: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        _choice("compute", compute, COMPUTE)
        _choice("quantize", quantize, (None, *QUANTIZE))
        _choice("kv_dtype", kv_dtype, (None, *KV_DTYPES))
        _choice("prefix_cache", prefix_cache, (True, False))
        for name, value, most in (
            ("n_threads", n_threads, 1024),
            ("n_ctx", n_ctx, 1 << 22),
            ("kv_bytes", kv_bytes, 1 << 62),
        ):
            if value is not None:
                _int(name, value, 1, most)
        _int("prefill_chunk", prefill_chunk, 1, 1 << 16)
        _int("max_batch", max_batch, 1, 1 << 12)
        located = locate(model)
        quantize = quantize or located.quantize
        if quantize and compute != "auto":
            raise ValueError(f"quantize: expected None with compute={compute!r}, found {quantize!r}")
        with open_model(located.path) as source:
            self._model = Model(
                source,
                n_ctx=n_ctx,
                n_threads=default_threads() if n_threads is None else n_threads,
                compute=compute,
                quantize=quantize,
                kv_dtype=kv_dtype,
                kv_bytes=kv_bytes,
                prefill_chunk=prefill_chunk,
                max_batch=max_batch,
                use_hugepages=use_hugepages,
                use_mlock=use_mlock,
            )
            self._engine = Engine(self._model, prefix_cache)
            try:  # nothing may read the file once it is closed
                self._engine.load(source)
                self.tokenizer = Tokenizer.of_model(source, self._model.config.vocab_size)
                self.default_params = read_defaults(located.path, source.metadata)
                source.metadata.clear()  # the vocabulary's lists; the tokenizer has its own
                self._engine.wait(progress)
            except BaseException:
                self._engine.close()
                raise
        self._finalizer = weakref.finalize(self, self._engine.close)
        self._finalizer.atexit = False

    # ---- text ----

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        **options: Any,
    ) -> list[RequestOutput]:
        """Continues each prompt, a text or a list of token ids; all of them together.

        params: one for all, or one per prompt; or keywords of SamplingParams and their aliases.
        Raises ContextLengthError for a prompt that does not fit the context, OutOfKVBlocks for one
        that does not fit kv_bytes, ValueError for a parameter that does not fit the vocabulary,
        NumericError if weights are so broken that no logit is a number, Cancelled if the LLM is closed.
        """
        many = _prompts(prompts)
        if isinstance(params, Sequence):
            if len(params) != len(many):
                raise ValueError(f"params: expected {len(many)}, one per prompt, found {len(params)}")
            each = [params_from(p, options, self.default_params) for p in params]
        else:
            each = [params_from(params, options, self.default_params)] * len(many)
        groups = [self._requests(p, s, stream=False) for p, s in zip(many, each, strict=True)]
        self._run([request for group in groups for request in group])
        return [result(group) for group in groups]

    def stream(self, prompt: Prompt, params: SamplingParams | None = None, **options: Any) -> Stream:
        """Like generate for one prompt, but text piece by piece, as it comes."""
        params = params_from(params, options, self.default_params)
        if params.n != 1:
            raise ValueError(f"n: expected 1 for a stream, found {params.n}")
        (request,) = self._requests(prompt, params, stream=True)
        self._engine.submit([request])
        return Stream(self, request)

    def chat(
        self,
        messages: Conversation | Sequence[Conversation],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        **options: Any,
    ) -> list[RequestOutput]:
        """Answers a conversation, or each of several.

        messages: dicts with role and content, as OpenAI's; lists of such. The text is that of the
        model's own chat template, or of `chat_template`, which reads `tools` (JSON schemas) and
        `chat_template_kwargs`; see ChatTemplate.render. params, options: as for generate.
        Raises what generate does; TypeError and ValueError naming `messages[i].content` and the
        like; ChatTemplateError if there is no template, or it fails, or refuses the messages.
        """
        rendered = self._chat_prompts(
            messages,
            chat_template,
            chat_template_kwargs,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
        )
        outputs = self.generate([ids for _, ids in rendered], params, **options)
        for output, (text, _) in zip(outputs, rendered, strict=True):
            output.prompt = text
        return outputs

    def chat_stream(
        self,
        messages: Conversation,
        params: SamplingParams | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        **options: Any,
    ) -> Stream:
        """Like chat for one conversation, but text piece by piece, as it comes."""
        (text, ids), *others = self._chat_prompts(
            messages,
            chat_template,
            chat_template_kwargs,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
        )
        if others:
            raise TypeError(f"messages: expected one conversation, found {1 + len(others)}")
        stream = self.stream(ids, params, **options)
        stream._request.prompt = text
        return stream

    def logits(self, token_ids: Sequence[int]) -> np.ndarray:
        """float32 [n, vocab]: the logits after each of n token ids."""
        ids = self._ids(token_ids, "token_ids", "token ids, as tokenizer.encode() makes them")
        if len(ids) > self.n_ctx:
            raise ContextLengthError(
                f"token_ids: expected at most {self.n_ctx}, the context, found {len(ids)}"
            )
        out = np.empty((len(ids), self._model.config.vocab_size), np.float32)
        self._run([Request(ids, SamplingParams(), logits=out)])
        return out

    # ---- facts ----

    @property
    def n_ctx(self) -> int:
        """Tokens per sequence, prompt included."""
        return self._model.n_ctx

    @property
    def n_threads(self) -> int:
        """Threads that compute."""
        return self._model.limits.n_threads

    @property
    def isa(self) -> str:
        """The kernels' ISA level."""
        return self._model.kernels.name

    @property
    def model(self) -> Model:
        """Config, Program and memory plan."""
        return self._model

    # ---- life ----

    def close(self) -> None:
        """Ends what is running (its callers get Cancelled) and gives all memory back."""
        self._finalizer()

    def __repr__(self) -> str:
        state = "" if self._finalizer.alive else ", closed"
        return f"LLM({self._model.path!r}, n_ctx={self.n_ctx}, n_threads={self.n_threads}{state})"

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- inside ----

    def _ids(
        self, ids: Sequence[int], name: str = "prompt", wanted: str = "a text or token ids"
    ) -> list[int]:
        vocab = self._model.config.vocab_size
        try:
            if isinstance(ids, (str, bytes, bytearray, memoryview, dict)) or any(
                isinstance(i, bool) for i in ids
            ):
                raise TypeError
            out = list(map(operator.index, ids))
        except TypeError:
            raise TypeError(f"{name}: expected {wanted}, found {ids!r:.80}") from None
        if not out:
            raise ValueError(f"{name}: expected at least one token, found none")
        if min(out) < 0 or max(out) >= vocab:
            bad = next(i for i in out if not 0 <= i < vocab)
            raise ValueError(f"{name}: expected token ids from 0 to {vocab - 1}, found {bad}")
        return out

    def _chat_prompts(
        self, messages: Any, chat_template: str | None, variables: Mapping[str, Any] | None, **arguments: Any
    ) -> list[tuple[str, list[int]]]:
        template = template_of(self.tokenizer, self._model.path, chat_template)
        return render_chat(self.tokenizer, template, messages, variables, **arguments)

    def _requests(self, prompt: Prompt, params: SamplingParams, stream: bool) -> list[Request]:
        """One per continuation."""
        text = prompt if isinstance(prompt, str) else None
        ids = self._ids(self.tokenizer.encode(text) if text is not None else prompt)  # type: ignore[arg-type]
        room = self.n_ctx - len(ids)
        if room < 1:
            raise ContextLengthError(
                f"prompt: expected at most {self.n_ctx - 1} tokens, the context less one, found {len(ids)}"
            )
        most = self._model.kv_plan.n_blocks * KV_BLOCK
        if len(ids) > most:
            raise OutOfKVBlocks(
                f"prompt: expected at most {most} tokens, all that kv_bytes holds, found {len(ids)}"
            )
        max_tokens = room if params.max_tokens is None else min(room, params.max_tokens)
        stop_ids = frozenset(params.stop_token_ids or ())
        if not params.ignore_eos:
            stop_ids |= self.tokenizer.stop_ids
        return [
            Request(
                ids,
                params,
                index=i,
                prompt=text,
                stop_ids=stop_ids,
                sampler=Sampler(
                    params,
                    ids,
                    index=i,
                    n_max=len(ids) + max_tokens,
                    stop_ids=stop_ids,
                    vocab_size=self._model.config.vocab_size,
                ),
                detokenize=self.tokenizer.stream(ids),
                spell=self.tokenizer.spell,
                pieces=queue.SimpleQueue() if stream else None,
                max_tokens=max_tokens,
            )
            for i in range(params.n)
        ]

    def _run(self, requests: list[Request]) -> None:
        """Submits and waits; a caller that is interrupted takes its requests along."""
        self._engine.submit(requests)
        try:
            for request in requests:
                request.done.wait()
        except BaseException:
            self._engine.cancel(requests)
            raise
        for request in requests:
            if request.error is not None:
                raise request.error


def _prompts(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """One prompt or several: a text, ids, or a sequence of either."""
    if isinstance(prompts, str):
        return [prompts]
    if isinstance(prompts, (bytes, bytearray, memoryview, dict)) or not hasattr(prompts, "__iter__"):
        raise TypeError(f"prompts: expected texts or lists of token ids, found {prompts!r:.80}")
    many: list[Any] = list(prompts)
    if many and all(isinstance(p, (int, np.integer)) and not isinstance(p, bool) for p in many):
        return [many]
    for p in many:
        if isinstance(p, (bytes, bytearray, int)) or not isinstance(p, (str, Sequence, np.ndarray)):
            raise TypeError(f"prompts: expected texts or lists of token ids, found {p!r:.80}")
    return many


def _choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, allowed))}, found {value!r}")


def _int(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: expected an int, found {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name}: expected {low} to {high}, found {value}")
