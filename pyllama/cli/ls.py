"""`pyllama ls`: the models in the cache of the hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from .common import binary_size, printable
from .inspect_file import print_table

if TYPE_CHECKING:
    from huggingface_hub import CachedRepoInfo, CachedRevisionInfo

Row = dict[str, Any]


def rows_of(repo: CachedRepoInfo) -> Iterator[Row]:
    """The models of a repo; one that several revisions share is listed once, of main if it is there."""
    seen = set()
    newest_first = sorted(repo.revisions, key=lambda r: ("main" in r.refs, r.last_modified), reverse=True)
    for revision in newest_first:
        for row, blobs in models_of(repo, revision):
            if blobs not in seen:
                seen.add(blobs)
                yield row


def models_of(repo: CachedRepoInfo, revision: CachedRevisionInfo) -> Iterator[tuple[Row, frozenset[str]]]:
    """Rows of a revision, each with the paths of its blobs."""
    from pyllama.errors import HubError
    from pyllama.hub import HubName
    from pyllama.hub_files import CONFIG, choose_folder, gguf_models

    files = {f.file_path.relative_to(revision.snapshot_path).as_posix(): f for f in revision.files}
    ref = "main" if "main" in revision.refs else min(revision.refs, default=revision.commit_hash)

    def row(quant: str | None, names: tuple[str, ...], whole: bool, main: str) -> tuple[Row, frozenset[str]]:
        found = [files[name] for name in names]
        return {
            "name": str(HubName(repo.repo_id, quant, ref)),
            "quant": quant,
            "revision": revision.commit_hash,
            "size": sum(f.size_on_disk for f in found),
            "files": len(names),
            "complete": whole,
            "path": str(revision.snapshot_path / main),
        }, frozenset(str(f.blob_path) for f in found)

    models = gguf_models(files)
    quants = [m.quant for m in models]
    for m in models:
        quant = m.quant if quants.count(m.quant) == 1 and m.quant else m.files[0]
        yield row(quant, m.files, m.is_whole, m.files[0])
    if CONFIG in files and any(name.endswith(".safetensors") for name in files):
        try:
            yield row(None, choose_folder(files, revision.snapshot_path.joinpath, repo.repo_id), True, "")
        except HubError:
            yield row(None, tuple(files), False, "")


@click.command(short_help="List the models in the cache of the hub.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(("text", "json")),
    default="text",
    show_default=True,
    help="A table, or one JSON array.",
)
def command(output: str) -> None:
    """List the models in the cache of the Hugging Face hub: GGUF files, and folders of safetensors."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:  # nothing was ever downloaded
        repos = frozenset()
    except ValueError as error:  # it is a file
        raise click.ClickException(str(error)) from error
    rows = [
        row
        for repo in sorted(repos, key=lambda r: r.repo_id)
        if repo.repo_type == "model"
        for row in rows_of(repo)
    ]
    if output == "json":
        click.echo(json.dumps(rows, indent=2))
    elif rows:
        table = []
        for r in rows:
            state = str(r["files"]) if r["complete"] else f"{r['files']}, incomplete"
            table.append((printable(r["name"]), binary_size(r["size"]), state, printable(r["path"])))
        print_table("models", ("name", "size", "files", "path"), table)
