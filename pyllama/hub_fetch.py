"""Files of a hub into huggingface_hub's cache: resumed where a connection broke, checked against their hash.

The library lists, signs in, names errors and links; the bytes are streamed here through its session, since
its own downloads neither survive the process nor are compared with the hash that the hub tells. Layout of the
cache: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import WeakFileLock, build_hf_headers, get_session, hf_raise_for_status

from .errors import HubError

Progress = Callable[[int, int], None]

WAITS = (1.0, 2.0, 4.0)  # seconds before attempts after one that brought nothing
TOKEN_HINT = "set HF_TOKEN to a token that may read it"
CHUNK = 1 << 14  # what is lost at most where a connection ends
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ETAG = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}")


class RepoCache:
    """Where huggingface_hub keeps a model repo."""

    def __init__(self, repo: str, root: str | os.PathLike[str] | None) -> None:
        self.root = Path(root or constants.HF_HUB_CACHE).expanduser().resolve()
        self.name = "--".join(("models", *repo.split("/")))
        self.folder = self.root / self.name

    def snapshot(self, revision: str) -> Path | None:
        """The folder of a commit, branch or tag, if there is one."""
        commit = revision
        with contextlib.suppress(OSError, ValueError):
            commit = (self.folder / "refs" / revision).read_text().strip()
        folder = self.folder / "snapshots" / commit
        return folder if _COMMIT.fullmatch(commit) and folder.is_dir() else None

    def remember(self, revision: str, commit: str) -> None:
        """Notes which commit a branch or tag is, for when there is no network."""
        ref = self.folder / "refs" / revision
        if revision != commit and not (ref.is_file() and ref.read_text().strip() == commit):
            ref.parent.mkdir(parents=True, exist_ok=True)
            ref.write_text(commit)


class Remote:
    """A model repo of the hub at one commit. Raises HubError, and OSError for the disk."""

    def __init__(self, repo: str, revision: str, cache: RepoCache, endpoint: str | None) -> None:
        self.repo, self.cache = repo, cache
        self.api = HfApi(endpoint=endpoint, library_name="pyllama")
        self._received = 0  # bytes, by all attempts
        with self._explained(f"{repo}: revision {revision!r}"):
            info = self.api.model_info(
                repo, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
            )
            self.commit = str(info.sha)
            self.files = {s.rfilename: s for s in info.siblings or ()}
        if not _COMMIT.fullmatch(self.commit):
            raise HubError(f"{repo}: commit: expected 40 hexadecimal digits, found {self.commit!r:.80}")

    def path(self, name: str) -> Path:
        """Where a file of this commit is, or will be."""
        return self.cache.folder / "snapshots" / self.commit / name

    def fetch(self, names: tuple[str, ...], progress: Progress | None = None) -> None:
        """Puts files into the cache. progress: called with (bytes done, bytes in all) of what is missing."""
        missing = [name for name in names if not self.path(name).exists()]
        sizes = [self.files[name].size or 0 for name in missing]
        total, done = sum(sizes), 0
        if missing:
            self._check_disk(total)
        for name, size in zip(missing, sizes, strict=True):

            def show(n: int, before: int = done) -> None:
                if progress is not None:
                    progress(before + n, total)

            self._fetch_one(name, show)
            done += size

    def _check_disk(self, need: int) -> None:
        self.cache.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.cache.root).free
        if need > free:
            raise HubError(f"{self.cache.root}: expected {need} bytes of free disk, found {free}")

    def _fetch_one(self, name: str, show: Callable[[int], None]) -> None:
        """Attempts until one succeeds, or several in a row brought nothing."""
        idle = 0
        while True:
            before = self._received
            try:
                with self._explained(f"{self.repo}/{name}"):
                    return self._attempt(name, show)
            except HubError as error:
                idle = 0 if self._received > before else idle + 1
                if not _is_passing(error.__cause__) or idle > len(WAITS):
                    raise
            if idle:
                time.sleep(WAITS[idle - 1])

    def _attempt(self, name: str, show: Callable[[int], None]) -> None:
        """The blob first, then the library's own download, which finds the blob and only links it."""
        url = f"{self.api.endpoint}/{self.repo}/resolve/{self.commit}/{quote(name)}"
        meta = self.api.get_hf_file_metadata(url=url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        etag, size = meta.etag or "", self.files[name].size if meta.size is None else meta.size
        if not _ETAG.fullmatch(etag) or size is None:
            what = f"expected an ETag and a size, found {etag!r:.80} and {size}"
            raise HubError(f"{self.repo}/{name}: {what}")
        blob, part = (self.cache.folder / "blobs" / n for n in (etag, f"{etag}.incomplete"))
        lock = self.cache.root / ".locks" / self.cache.name / f"{etag}.lock"
        for folder in (blob.parent, lock.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            if not blob.exists():
                self._receive(url, part, size, show)
                self._verify(part, size, etag, name)
                part.replace(blob)
        self.api.hf_hub_download(self.repo, name, revision=self.commit, cache_dir=self.cache.root)

    def _receive(self, url: str, part: Path, size: int, show: Callable[[int], None]) -> None:
        """Appends what is missing of `part`. Raises ConnectionError if it ends early."""
        have = part.stat().st_size if part.exists() else 0
        show(min(have, size))
        if have >= size > 0:
            return
        with _get(url, have) as (status, chunks), part.open("ab") as file:
            if status != 206:  # the whole file, whatever was asked for
                file.truncate(have := 0)
            for chunk in chunks:
                file.write(chunk)
                have += len(chunk)
                self._received += len(chunk)
                show(min(have, size))
                if have > size:
                    return
        if have < size:
            raise ConnectionError(f"the connection ended after {have} of {size} bytes")

    def _verify(self, part: Path, size: int, etag: str, name: str) -> None:
        """Deletes the file and raises if it is not what the hub announced."""
        found = part.stat().st_size
        wrong = f"{size} bytes, found {found}" if found != size else ""
        if not wrong and (digest := _digest(part, etag, self.files[name].blob_id)) != etag:
            wrong = f"hash {etag}, found {digest}"
        if wrong:
            part.unlink()
            raise HubError(f"{self.repo}/{name}: expected {wrong}: damaged, deleted; pull again")

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except HubError:
            raise
        except Exception as error:  # requests, httpx: the versions of the library share no other base
            if _is_of_disk(error):
                raise
            raise HubError(_explain(error, what, self.repo, self.api)) from error


@contextlib.contextmanager
def _get(url: str, start: int) -> Iterator[tuple[int, Iterator[bytes]]]:
    """Status and body from byte `start` on. The session drops the token where it is sent elsewhere."""
    headers = build_hf_headers(library_name="pyllama") | {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    session: Any = get_session()
    options = {"headers": headers, "timeout": constants.HF_HUB_DOWNLOAD_TIMEOUT}
    if callable(session.stream):  # httpx; requests, before huggingface_hub 1.0, has a flag of that name
        with session.stream("GET", url, follow_redirects=True, **options) as response:
            hf_raise_for_status(response)
            yield response.status_code, response.iter_raw()
    else:
        with session.get(url, stream=True, **options) as response:
            hf_raise_for_status(response)
            yield response.status_code, response.iter_content(CHUNK)


def _digest(path: Path, etag: str, git_id: str | None) -> str:
    """The hash that `etag` is: SHA-256 for files of Git LFS, Git's SHA-1 for others; else `etag` itself."""
    if _SHA256.fullmatch(etag):
        digest = hashlib.sha256()
    elif etag == git_id:
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    else:
        return etag
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _is_of_disk(error: BaseException | None) -> bool:
    """Whether the disk failed: the errors of HTTP libraries have no errno."""
    return isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError)


def _is_passing(error: BaseException | None) -> bool:
    """Whether another attempt may help: the network failed, or the hub is overloaded."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    return error is not None and not isinstance(error, OfflineModeIsEnabled) and not _is_absent(error)


def _is_absent(error: BaseException) -> bool:
    """Whether the hub has no such file. The library says "entry not found" of a failed look-up, too."""
    return isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError)


def _explain(error: Exception, what: str, repo: str, api: HfApi) -> str:
    """One line: what is wrong, and what to do."""
    page = f"{api.endpoint}/{repo}"
    if isinstance(error, OfflineModeIsEnabled):
        return f"{what}: not in the cache, and HF_HUB_OFFLINE is set: unset it to download"
    if isinstance(error, GatedRepoError):
        return f"{what}: gated: accept the terms on {page}, then {TOKEN_HINT}"
    if isinstance(error, RevisionNotFoundError) or _is_absent(error):
        return f"{what}: not found in {page}"
    if isinstance(error, RepositoryNotFoundError):
        if kind := _other_kind(repo, api):
            return f"{repo}: expected a model, found a {kind}"
        return f"{repo}: not found on {api.endpoint}; if it is private, {TOKEN_HINT}"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        hint = TOKEN_HINT if status in (401, 403) else "try again later"
        return f"{what}: {api.endpoint} answers {status}: {hint}"
    reason = f"{type(error).__name__}: {error!s:.200}"
    return f"{what}: {api.endpoint} cannot be read, is there a network? {reason}"


def _other_kind(repo: str, api: HfApi) -> str | None:
    for kind in ("dataset", "space"):
        with contextlib.suppress(Exception):  # any failure: it is not known to be one
            api.repo_info(repo, repo_type=kind, timeout=constants.HF_HUB_ETAG_TIMEOUT)
            return kind
    return None
