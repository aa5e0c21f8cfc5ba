"""tests/checkasm.c, built by each compiler at hand and run on each ISA level.

CFLAGS are appended to the line: CFLAGS=-fsanitize=address,undefined is the sanitizer build.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy as np
import pytest
from ggufmodel import FORMATS, random_matrix

ROOT = Path(__file__).parents[1]
FLAGS = ["-O3", "-std=c11", "-D_GNU_SOURCE", "-ffp-contract=off", "-fno-math-errno", "-Icsrc"]
LEVELS = [
    re.findall(r'#define ISA_NAME "(.+)"', path.read_text())[0]
    for path in sorted((ROOT / "csrc").glob("isa_*.c"))
]
NATIVE = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
CROSS = "aarch64-linux-gnu-gcc -static"


def sources() -> list[str]:
    paths = [*ROOT.glob("tests/checkasm*.c"), ROOT / "csrc/cpu.c", *ROOT.glob("csrc/isa_*.c")]
    return sorted(str(path.relative_to(ROOT)) for path in paths)


def build(compiler: str, folder: Path) -> Path:
    """Checkasm by one compiler line; skips where a compiler is missing that pyllama was not built by."""
    command = shlex.split(compiler)
    if compiler != NATIVE and shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]}")
    output = folder / "checkasm"
    command += [*FLAGS, *shlex.split(os.environ.get("CFLAGS", ""))]

    def call(*arguments: str) -> None:
        done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    objects = [str(folder / f"{Path(source).stem}.o") for source in sources()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda source, to: call("-c", source, "-o", to), sources(), objects))
    call(*objects, "-lm", "-o", str(output))
    return output


@pytest.fixture(scope="module", params=dict.fromkeys([NATIVE, "clang"]))
def checkasm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(request.param, tmp_path_factory.mktemp("checkasm"))


def run(*command: str | Path) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("level", LEVELS)
def test_level(checkasm: Path, level: str) -> None:
    out = run(checkasm, "--isa", level)
    if "skipped" in out:
        pytest.skip(f"no {level} on this CPU")
    passed, failed = re.findall(r"^(\d+) passed, (\d+) failed$", out, re.MULTILINE)[0]
    assert int(passed) > 1000 and int(failed) == 0


def random_blocks(format: str) -> np.ndarray:
    """Sane rows and rows of any bits whatever, as bytes [n, row]."""
    rng = np.random.default_rng(1)
    sane = np.frombuffer(random_matrix(rng, format, 8, 512, 1.0), np.uint8).reshape(8, -1)
    return np.concatenate([sane, rng.integers(0, 256, sane.shape, np.uint8)])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of infinities and NaN
@pytest.mark.parametrize("level", LEVELS)
def test_formats_mean_what_gguf_says(checkasm: Path, level: str) -> None:
    """`dequantize` has the very bits of the gguf package's."""
    if "skipped" in run(checkasm, "--isa", level, "--op", "table"):
        pytest.skip(f"no {level} on this CPU")
    for format in FORMATS:
        blocks = random_blocks(format)
        command = [checkasm, "--isa", level, "--dequantize", format]
        done = subprocess.run(command, input=blocks.tobytes(), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        expected = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[format])
        found = np.frombuffer(done.stdout, "<f4").reshape(expected.shape)
        assert np.array_equal(found, expected, equal_nan=True), format


def test_bench_prints_a_table(checkasm: Path) -> None:
    out = run(checkasm, "--bench", "--isa", "scalar", "--op", "rmsnorm")
    assert re.search(r"^scalar +rmsnorm +n=4096 +[\d.]+ ", out, re.MULTILINE), out


def test_unknown_level_is_an_error(checkasm: Path) -> None:
    done = subprocess.run([checkasm, "--isa", "mmx"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "mmx" in done.stderr


def test_aarch64(tmp_path: Path) -> None:
    if shutil.which("qemu-aarch64") is None:
        pytest.skip("no qemu-aarch64")
    assert " 0 failed" in run("qemu-aarch64", build(CROSS, tmp_path))
