"""The life of an LLM: threads, cancelling, closing, forking, memory, errors."""

from __future__ import annotations

import gc
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ggufmodel import ModelFiles, random_ids

import pyllama
from pyllama import LLM, Cancelled, ContextLengthError, NumericError, OutOfKVBlocks, SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return ModelFiles(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def small(files: ModelFiles) -> str:
    return files(format="F32", n_ctx=512)


@pytest.fixture(scope="module")
def slow(files: ModelFiles) -> str:
    """Some hundreds of milliseconds per thousand tokens, on any machine this runs on."""
    return files(format="Q8_0", dim=1024, hidden_dim=4096, n_layers=6, n_heads=16, n_kv_heads=4, n_ctx=8192)


@pytest.fixture
def llm(small: str):
    with LLM(small) as llm:
        yield llm


def texts(llm: LLM, prompts: list[list[int]]) -> list[list[int]]:
    return [o.outputs[0].token_ids for o in llm.generate(prompts, GREEDY)]


def in_child(code: str, *args: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
        # a parent in the background may ignore SIGINT, and its children with it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )


def test_results_tell_the_whole_story(llm: LLM) -> None:
    out = llm.generate("ab", GREEDY)[0]
    assert out.finished and out.prompt == "ab"
    assert out.prompt_token_ids == llm.tokenizer.encode("ab")
    assert len(out.outputs[0].token_ids) == 24 and out.outputs[0].finish_reason == "length"
    assert out.text and out.text == out.outputs[0].text
    t = out.timings
    assert 0 < t.prefill_s <= t.ttft_s and t.decode_tps > 0 and t.engine_s > 0


def test_stream_equals_generate(llm: LLM) -> None:
    for seed in range(20):
        params = SamplingParams(max_tokens=30, seed=seed, ignore_eos=True)
        stream = llm.stream("a b", params)
        assert "".join(stream) == llm.generate("a b", params)[0].text
        assert stream.output.finished


def test_stop_strings_never_show(llm: LLM) -> None:
    params = SamplingParams(max_tokens=60, seed=5, ignore_eos=True)
    whole = llm.generate("a", params)[0].text
    assert len(whole) > 8
    for at, n in [(3, 1), (4, 3), (len(whole) - 3, 2)]:
        stop = whole[at : at + n]
        params = SamplingParams(max_tokens=60, seed=5, ignore_eos=True, stop=["\0never", stop])
        out = llm.generate("a", params)[0]
        assert out.text == whole[: whole.find(stop)]
        assert (out.outputs[0].finish_reason, out.outputs[0].stop_reason) == ("stop", stop)
        stream = llm.stream("a", SamplingParams(max_tokens=60, seed=5, ignore_eos=True, stop=stop))
        assert "".join(stream) == out.text


def test_end_tokens_end_a_text(llm: LLM) -> None:
    end = llm.tokenizer.eos_id
    ends = 0
    for seed in range(200):
        out = llm.generate("a", SamplingParams(max_tokens=100, seed=seed, temperature=2.0))[0].outputs[0]
        assert (out.finish_reason == "stop") == (end in out.token_ids)
        assert end not in out.token_ids[:-1]
        ends += out.finish_reason == "stop"
    assert ends > 0


def test_many_threads_one_llm(llm: LLM) -> None:
    prompts = [random_ids(n, seed=n) for n in range(1, 25)]
    alone = [texts(llm, [p])[0] for p in prompts]
    found: dict[int, list[int]] = {}

    def client(first: int) -> None:
        for i in range(first, len(prompts), 4):
            found[i] = texts(llm, [prompts[i]])[0]

    threads = [threading.Thread(target=client, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [found[i] for i in range(len(prompts))] == alone


def test_close_during_generate_raises_in_the_caller(slow: str) -> None:
    llm = LLM(slow, n_threads=2)
    raised: queue.Queue[BaseException] = queue.Queue()

    def caller() -> None:
        try:
            llm.generate([random_ids(6000)], max_tokens=100, ignore_eos=True)
        except BaseException as error:
            raised.put(error)

    thread = threading.Thread(target=caller)
    thread.start()
    time.sleep(0.2)
    llm.close()
    thread.join(10)
    assert isinstance(raised.get_nowait(), Cancelled)
    with pytest.raises(Cancelled):
        llm.generate("a", GREEDY)
    llm.close()  # twice is fine


def test_cancelled_stream_leaves_others_alone(llm: LLM) -> None:
    expected = texts(llm, [random_ids(5)])[0]
    long = SamplingParams(temperature=0, ignore_eos=True)
    streams = [llm.stream([1], long) for _ in range(3)]
    for s in streams:
        next(s)
    threading.Timer(0.005, streams[0].cancel).start()
    assert texts(llm, [random_ids(5)])[0] == expected
    list(streams[0])
    del streams[1]
    streams[1].cancel()
    gc.collect()
    assert texts(llm, [random_ids(5)])[0] == expected


def test_a_stream_shared_by_threads_ends_in_all(llm: LLM) -> None:
    stream = llm.stream([1], SamplingParams(temperature=0, max_tokens=200, ignore_eos=True))
    pieces: list[str] = []
    threads = [threading.Thread(target=lambda: pieces.extend(stream), daemon=True) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(20)
    assert not any(t.is_alive() for t in threads)
    assert sorted(pieces) == sorted(llm.stream([1], stream._request.params))


def test_a_request_beyond_the_cache_says_so(small: str) -> None:
    with LLM(small, kv_bytes=100_000, prefill_chunk=16) as llm:
        most = llm.model.kv_plan.n_blocks * 32
        with pytest.raises(OutOfKVBlocks, match=f"prompt: expected at most {most} tokens"):
            llm.generate([random_ids(most + 1)], GREEDY)
        with pytest.raises(OutOfKVBlocks, match=f"holds {most} tokens"):
            llm.generate([random_ids(most - 2)], temperature=0, max_tokens=40, ignore_eos=True)
        assert len(texts(llm, [[1, 2]])[0]) == 24


def test_weights_that_are_no_numbers_are_an_error(files: ModelFiles) -> None:
    path = files(format="F32", sharpness=float("nan"))
    with LLM(path) as llm:
        for params in (GREEDY, SamplingParams(logprobs=2), SamplingParams(banned_token_ids=[5])):
            with pytest.raises(NumericError, match=f"{path}: .*none after 9 tokens"):
                llm.generate(random_ids(9), params)
        with pytest.raises(NumericError):
            list(llm.stream(random_ids(9), GREEDY))


def test_a_stream_keeps_its_llm_open(small: str) -> None:
    assert len("".join(LLM(small).stream("a", SamplingParams(seed=1, max_tokens=40, ignore_eos=True)))) > 0


def test_interrupted_prefill_returns_at_once(slow: str) -> None:
    code = """
import sys, time, pyllama
llm = pyllama.LLM(sys.argv[1], n_threads=2)
print("ready", flush=True)
try:
    llm.generate([[1] + [5] * 8000], max_tokens=100, ignore_eos=True)
except KeyboardInterrupt:
    print("interrupted", time.time(), flush=True)
assert len(llm.generate([[1, 2, 3]], max_tokens=2, ignore_eos=True)[0].outputs[0].token_ids) == 2
print("alive", flush=True)
"""
    child = in_child(code, slow)
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.3)
    sent = time.time()
    child.send_signal(signal.SIGINT)
    word, when = child.stdout.readline().split()
    assert word == "interrupted" and float(when) - sent < 5  # the bench reports the real figure
    assert child.communicate(timeout=60)[0] == "alive\n" and child.returncode == 0


def test_fork_after_use(small: str) -> None:
    with LLM(small, n_threads=2) as llm:
        expected = texts(llm, [[1, 2, 3]])
        pid = os.fork()
        if pid == 0:
            ok = False
            try:
                ok = texts(llm, [[1, 2, 3]]) == expected
                llm.close()
            finally:
                os._exit(0 if ok else 1)
        deadline = time.time() + 60
        while (done := os.waitpid(pid, os.WNOHANG)) == (0, 0):
            if time.time() > deadline:
                os.kill(pid, signal.SIGKILL)
                pytest.fail("the child hangs")
            time.sleep(0.02)
        assert os.waitstatus_to_exitcode(done[1]) == 0
        assert texts(llm, [[1, 2, 3]]) == expected


def test_idle_costs_nothing(llm: LLM) -> None:
    llm.generate("a", GREEDY)
    time.sleep(0.1)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.05


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_memory_is_given_back(files: ModelFiles) -> None:
    path = files(format="Q8_0", dim=512, hidden_dim=1024, n_layers=4, n_heads=8, n_kv_heads=8)

    def once() -> None:
        with LLM(path, n_threads=2) as llm:
            llm.generate("a", GREEDY)

    for _ in range(10):
        once()
    gc.collect()
    before = resident()
    for _ in range(100):
        once()
    gc.collect()
    assert resident() - before < 8 << 20


def test_torch_before_or_after(small: str) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    for order in ("import torch, pyllama", "import pyllama, torch"):
        code = f"""
{order}
import sys
a = torch.ones(300, 300) @ torch.ones(300, 300)
llm = pyllama.LLM(sys.argv[1])
ids = llm.generate([[1, 2, 3]], temperature=0, max_tokens=5, ignore_eos=True)[0].outputs[0].token_ids
assert float((torch.ones(300, 300) @ torch.ones(300, 300))[0, 0]) == 300
print(ids)
"""
        out, err = in_child(code, small).communicate(timeout=120)
        assert out.startswith("["), err


def test_interpreter_exits_with_an_open_llm(slow: str) -> None:
    code = """
import sys, threading, pyllama
llm = pyllama.LLM(sys.argv[1])
stream = llm.stream([1, 2, 3], temperature=0, ignore_eos=True)
next(stream)
print("bye")
"""
    child = in_child(code, slow)
    out, err = child.communicate(timeout=60)
    assert (out, child.returncode) == ("bye\n", 0), err


def test_import_is_light() -> None:
    code = "import sys, pyllama; print([m for m in ('numpy', 'sentencepiece', 'rich') if m in sys.modules])"
    assert in_child(code).communicate(timeout=60)[0] == "[]\n"


@pytest.mark.parametrize(
    ("prompt", "options", "error", "words"),
    [
        ([], {}, None, None),
        ("", {"temperature": -1}, ValueError, "temperature"),
        ("", {"temperature": float("nan")}, ValueError, "temperature"),
        ("", {"top_p": 0}, ValueError, "top_p"),
        ("", {"max_tokens": 0}, ValueError, "max_tokens"),
        ("", {"max_tokens": 1.5}, TypeError, "max_tokens"),
        ("", {"stop": [""]}, ValueError, "stop"),
        ("", {"nonsense": 1}, TypeError, "nonsense"),
        ("", {"max_tokens": 1, "max_new_tokens": 1}, TypeError, "twice, as max_tokens and as max_new_tokens"),
        ([[1, 10**6]], {}, ValueError, "1000000"),
        ([[1, -1]], {}, ValueError, "-1"),
        ([[]], {}, ValueError, "at least one token"),
        ([[1] * 512], {}, ContextLengthError, "511"),
        ([b"bytes"], {}, TypeError, "bytes"),
        ([None], {}, TypeError, "None"),
        (b"bytes", {}, TypeError, "bytes"),
        (5, {}, TypeError, "5"),
        ([[True]], {}, TypeError, "True"),
        ("", {"stop": 5}, TypeError, "stop"),
        ("", {"ignore_eos": "no"}, TypeError, "ignore_eos"),
        ([["a"]], {}, TypeError, "token ids"),
        ([[1.5]], {}, TypeError, "token ids"),
    ],
)
def test_bad_arguments(llm: LLM, prompt, options, error, words) -> None:
    if error is None:
        assert llm.generate(prompt, **options) == []
        return
    with pytest.raises(error, match=words):
        llm.generate(prompt, **options)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"n_ctx": 0}, ValueError),
        ({"n_ctx": 1 << 20}, ValueError),
        ({"n_threads": 0}, ValueError),
        ({"n_threads": "2"}, TypeError),
        ({"compute": "f64"}, ValueError),
        ({"compute": "bf16", "quantize": "q8_0"}, ValueError),
        ({"kv_dtype": "q4"}, ValueError),
        ({"prefill_chunk": 0}, ValueError),
        ({"kv_bytes": 1}, ValueError),
    ],
)
def test_bad_llm_arguments(small: str, options, error) -> None:
    with pytest.raises(error):
        LLM(small, **options)


def test_bad_isa_is_refused(small: str) -> None:
    env = {**os.environ, "PYLLAMA_ISA": "avx1024"}
    err = in_child("import sys, pyllama; pyllama.LLM(sys.argv[1])", small, env=env).communicate(timeout=60)[1]
    assert "PYLLAMA_ISA" in err and "avx1024" in err and "scalar" in err


def test_unknown_names_raise() -> None:
    with pytest.raises(AttributeError):
        _ = pyllama.nonsense
    assert "LLM" in dir(pyllama)
