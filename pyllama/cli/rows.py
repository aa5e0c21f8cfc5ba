"""Rows of `bench` in the formats of llama-bench and llama-batched-bench."""

from __future__ import annotations

import csv
import datetime
import json
import platform
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyllama import __version__

from .common import binary_size, count

if TYPE_CHECKING:
    from pyllama.llm import LLM

    from .facts import Facts
    from .measure import BatchTest, Test

Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of a table in Markdown."""

    title: str
    width: int
    text: Callable[[Row], str]
    left: bool = False

    def pad(self, text: str) -> str:
        """`text` in the column's width."""
        return text.ljust(self.width) if self.left else text.rjust(self.width)

    def rule(self) -> str:
        """What stands below the title."""
        return "-" * self.width if self.left else "-" * (self.width - 1) + ":"


def _plain(title: str, width: int, field: str, form: str = "") -> Column:
    return Column(title, width, lambda row: format(row[field], form))


TEST_COLUMNS = (
    Column("model", 30, lambda r: r["model_type"], left=True),
    Column("size", 10, lambda r: binary_size(r["model_size"])),
    Column("params", 10, lambda r: count(r["model_n_params"])),
    Column("backend", 10, lambda r: r["backends"], left=True),
    _plain("threads", 7, "n_threads"),
    Column("test", 15, lambda r: r["test"]),
    Column("t/s", 20, lambda r: f"{r['avg_ts']:.2f} ± {r['stddev_ts']:.2f}"),
)
OPTIONAL_COLUMNS = (_plain("n_ubatch", 8, "n_ubatch"), _plain("type_k", 6, "type_k"))
BATCH_COLUMNS = (
    _plain("PP", 5, "pp"),
    _plain("TG", 6, "tg"),
    _plain("B", 4, "pl"),
    _plain("N_KV", 6, "n_kv"),
    _plain("T_PP s", 8, "t_pp", ".3f"),
    _plain("S_PP t/s", 8, "speed_pp", ".2f"),
    _plain("T_TG s", 8, "t_tg", ".3f"),
    _plain("S_TG t/s", 8, "speed_tg", ".2f"),
    _plain("T s", 8, "t", ".3f"),
    _plain("S t/s", 8, "speed", ".2f"),
)
NOT_PRINTED = ("test",)  # for Markdown alone
LISTS = ("samples_ns", "samples_ts", "profile")  # not in csv, as in llama-bench
PROFILE_COLUMNS = (
    Column("op", 34, lambda r: r["op"], left=True),
    _plain("runs", 6, "runs"),
    _plain("us", 9, "us", ".1f"),
    Column("time", 6, lambda r: f"{100 * r['share']:.1f} %"),
    Column("GB/s", 6, lambda r: f"{r['n_bytes'] / r['seconds'] / 1e9:.1f}" if r["n_bytes"] else ""),
    Column("Gop/s", 6, lambda r: f"{2 * r['macs'] / r['seconds'] / 1e9:.0f}" if r["macs"] else ""),
    Column("limit", 6, lambda r: f"{100 * r['least'] / r['seconds']:.0f} %" if r["least"] else ""),
)


class Writer:
    """Prints rows as they come; the base prints JSON lines."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = columns
        self.n_rows = 0

    def write(self, row: Row) -> None:
        """One more row."""
        if not self.n_rows:
            self.begin(row)
        self.n_rows += 1
        self.line(row)
        sys.stdout.flush()

    def begin(self, row: Row) -> None:
        """What stands before the first row."""

    def line(self, row: Row) -> None:
        """Prints a row."""
        click.echo(json.dumps(fields(row)))

    def end(self) -> None:
        """What stands after the last row."""


class Json(Writer):
    """One array. What was measured before an error or Ctrl-C is a whole array, too."""

    def line(self, row: Row) -> None:
        """Prints a row."""
        click.echo(("[\n" if self.n_rows == 1 else ",\n") + json.dumps(fields(row), indent=2), nl=False)

    def end(self) -> None:
        """Closes the array."""
        click.echo("\n]")


class Csv(Writer):
    """A line of names, then values, all in quotes."""

    def begin(self, row: Row) -> None:
        """The names."""
        self.names = [name for name in fields(row) if name not in LISTS]
        self.out = csv.writer(sys.stdout, quoting=csv.QUOTE_ALL, lineterminator="\n")
        self.out.writerow(self.names)

    def line(self, row: Row) -> None:
        """The values."""
        values = (row[name] for name in self.names)
        self.out.writerow([int(v) if isinstance(v, bool) else v for v in values])


class Markdown(Writer):
    """A table."""

    def begin(self, row: Row) -> None:
        """The titles."""
        self._titles(self.columns)
        self.build = f"pyllama {row['build_commit']} ({row['isa']})"
        self.profiles: list[Row] = []

    def line(self, row: Row) -> None:
        """Prints a row."""
        self._cells(c.pad(c.text(row)) for c in self.columns)
        if "profile" in row:
            self.profiles.append(row)

    def end(self) -> None:
        """The ops of each test, what was measured."""
        for row in self.profiles:
            click.echo(f"\n{row['test']}: us per run, share of the time, what part of the limit it reaches\n")
            self._titles(PROFILE_COLUMNS)
            total = sum(op["seconds"] for op in row["profile"])
            for op in row["profile"]:
                op |= {"share": op["seconds"] / total, "us": 1e6 * op["seconds"] / op["runs"]}
                self._cells(c.pad(c.text(op)) for c in PROFILE_COLUMNS)
        click.echo(f"\nbuild: {self.build}")

    def _titles(self, columns: Sequence[Column]) -> None:
        self._cells(c.pad(c.title) for c in columns)
        self._cells(c.rule() for c in columns)

    @staticmethod
    def _cells(cells: Iterator[str]) -> None:
        click.echo(f"| {' | '.join(cells)} |")


WRITERS: dict[str, type[Writer]] = {"md": Markdown, "csv": Csv, "json": Json, "jsonl": Writer}


@contextmanager
def writing(output: str, columns: Sequence[Column]) -> Iterator[Writer]:
    """A Writer for `output`, ended whatever happens."""
    writer = WRITERS[output](columns)
    try:
        yield writer
    finally:
        if writer.n_rows:
            writer.end()


def fields(row: Row) -> Row:
    """The row without what is for Markdown alone."""
    return {name: value for name, value in row.items() if name not in NOT_PRINTED}


def cpu_name() -> str:
    """The CPU as the system calls it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def common_fields(llm: LLM, facts: Facts, compute: str, hugepages: bool) -> Row:
    """The fields that the rows of a model share, in llama-bench's order and names."""
    from pyllama._core import KV_DTYPES

    cache_type = KV_DTYPES[llm.model.kv_plan.dtype]
    return {
        "build_commit": __version__,
        "build_number": 0,
        "cpu_info": cpu_name(),
        "gpu_info": "",
        "backends": "CPU",
        "model_filename": llm.model.path,
        "model_type": facts.model_type,
        "model_size": facts.n_bytes,
        "model_n_params": facts.n_params,
        "n_batch": llm.model.prefill_chunk,
        "n_ubatch": llm.model.prefill_chunk,
        "n_threads": llm.n_threads,
        "type_k": cache_type,
        "type_v": cache_type,
        "n_gpu_layers": 0,
        "flash_attn": True,
        "isa": llm.isa,
        "compute": compute,
        "hugepages": hugepages,
    }


def test_fields(test: Test, seconds: Sequence[float]) -> Row:
    """The fields of one test, measured len(seconds) times."""
    ns = [max(1, round(s * 1e9)) for s in seconds]
    speeds = [1e9 * (test.n_prompt + test.n_gen) / t for t in ns]
    return {
        "test": test.name,
        "n_prompt": test.n_prompt,
        "n_gen": test.n_gen,
        "n_depth": test.n_depth,
        "test_time": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "avg_ns": round(statistics.fmean(ns)),
        "stddev_ns": round(_deviation(ns)),
        "avg_ts": statistics.fmean(speeds),
        "stddev_ts": _deviation(speeds),
        "samples_ns": ns,
        "samples_ts": speeds,
    }


def _deviation(samples: Sequence[float]) -> float:
    return statistics.stdev(samples) if len(samples) > 1 else 0.0


def batch_fields(test: BatchTest, times: Sequence[tuple[float, float]]) -> Row:
    """The fields of one batch; means, if it was measured several times."""
    t_pp, t_tg = (statistics.fmean(t) for t in zip(*times, strict=True))
    n_kv = test.pl * (test.pp + test.tg)
    return {
        "is_pp_shared": 0,
        "pp": test.pp,
        "tg": test.tg,
        "pl": test.pl,
        "n_kv": n_kv,
        "t_pp": t_pp,
        "speed_pp": test.pl * test.pp / t_pp,
        "t_tg": t_tg,
        "speed_tg": test.pl * test.tg / t_tg,
        "t": t_pp + t_tg,
        "speed": n_kv / (t_pp + t_tg),
    }
