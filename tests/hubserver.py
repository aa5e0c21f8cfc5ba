"""A stand-in for the Hugging Face hub on localhost: its API, its files, and what goes wrong on the way.

Files of Git LFS are redirected to another host name, as the hub does.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LFS = (".gguf", ".safetensors", ".model")  # suffixes of files that lie in Git LFS
TOKEN = "hf_letmein"


@dataclass
class Repo:
    """Files of a repo at one commit. gated: the code that strangers get."""

    files: dict[str, bytes]
    kind: str = "models"
    gated: int = 0
    tags: tuple[str, ...] = ()

    @property
    def commit(self) -> str:
        """A hash of everything."""
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


@dataclass
class Faults:
    """What goes wrong. cuts: file -> bytes after which each of the next bodies is cut off."""

    cuts: dict[str, list[int]] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)  # files whose bytes differ from what is announced
    status: dict[str, list[int]] = field(default_factory=dict)  # part of a path -> the next answers
    ignore_range: bool = False
    slow: float = 0.0  # seconds before each chunk of a body


def digest(name: str, data: bytes) -> str:
    """The ETag: SHA-256 of files in LFS, Git's blob id of others."""
    if name.endswith(LFS):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class HubServer(ThreadingHTTPServer):
    """`with HubServer({"org/repo": Repo(...)}) as hub:` serves at hub.url."""

    daemon_threads = True

    def __init__(self, repos: dict[str, Repo]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos, self.faults = repos, Faults()
        self.is_down = False
        self.requests: list[tuple[str, str, str | None]] = []  # method, path, Range
        self.leaked: list[str] = []  # tokens that arrived at the other host

    @property
    def url(self) -> str:
        """What HF_ENDPOINT would be."""
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """No connection is answered any more, nor are those that are open."""
        self.is_down = True
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client may go away at any time."""

    def bodies(self, name: str) -> list[str | None]:
        """The Range of each request for the contents of a file."""
        return [r for method, path, r in self.requests if method == "GET" and path.endswith("/" + name)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        if self.server.is_down:
            self.close_connection = True
            return None
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((self.command, path, self.headers.get("Range")))
        for part, codes in self.server.faults.status.items():
            if part in path and codes:
                return self._error(codes.pop(0), None)
        if api := re.fullmatch(r"/api/(models|datasets|spaces)/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            return self._info(*api.groups())
        if file := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(*file.groups())
        if blob := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
            if token := self.headers.get("Authorization"):
                self.server.leaked.append(token)
            return self._body(blob[2], self.server.repos[blob[1]].files[blob[2]], {})
        return self._error(404, None)

    def _repo(self, name: str, kind: str, revision: str | None) -> Repo | None:
        repo = self.server.repos.get(name)
        if repo is None or repo.kind != kind:
            self._error(401, "RepoNotFound")  # as the hub answers to strangers
        elif revision not in (None, "main", repo.commit, *repo.tags):
            self._error(404, "RevisionNotFound")
        else:
            return repo
        return None

    def _info(self, kind: str, name: str, revision: str | None) -> None:
        if repo := self._repo(name, kind, revision):
            siblings = [_sibling(file, data) for file, data in repo.files.items()]
            info = {"_id": "0", "id": name, "modelId": name, "sha": repo.commit, "siblings": siblings}
            info |= {"private": False, "gated": bool(repo.gated), "tags": [], "downloads": 0, "likes": 0}
            data = json.dumps(info).encode()
            self._head(200, {"Content-Type": "application/json", "Content-Length": str(len(data))})
            self.wfile.write(data)

    def _resolve(self, name: str, revision: str, file: str) -> None:
        if not (repo := self._repo(name, "models", revision)):
            return None
        if repo.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._error(repo.gated, "GatedRepo")
        if file not in repo.files:
            return self._error(404, "EntryNotFound")
        data, headers = repo.files[file], {"X-Repo-Commit": repo.commit}
        if not file.endswith(LFS):
            return self._body(file, data, headers | {"ETag": f'"{digest(file, data)}"'})
        headers |= {"X-Linked-Etag": f'"{digest(file, data)}"', "X-Linked-Size": str(len(data))}
        # Xet is offered, as the hub does, and leads nowhere: nobody must need it.
        headers |= {"X-Xet-Hash": digest(file, data), "Link": f'<{self.server.url}/xet>; rel="xet-auth"'}
        headers["Location"] = f"http://localhost:{self.server.server_port}/cdn/{name}/{file}"
        return self._head(302, headers | {"Content-Length": "0"})

    def _body(self, file: str, data: bytes, headers: dict[str, str]) -> None:
        faults, start, size = self.server.faults, 0, len(data)
        if file in faults.wrong:
            data = bytes(b ^ 1 for b in data)
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match and not faults.ignore_range:
            start = int(match[1])
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        data = data[start:]
        self._head(206 if start else 200, headers | {"Content-Length": str(len(data))})
        if self.command == "HEAD":
            return
        if cuts := faults.cuts.get(file):
            data = data[: cuts.pop(0)]
            self.close_connection = True
        for chunk in _chunks(data):
            time.sleep(faults.slow)
            self.wfile.write(chunk)

    def _error(self, code: int, kind: str | None) -> None:
        self._head(code, {"Content-Length": "0"} | ({"X-Error-Code": kind} if kind else {}))

    def _head(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _sibling(file: str, data: bytes) -> dict[str, object]:
    found: dict[str, object] = {"rfilename": file, "size": len(data), "blobId": digest("", data)}
    if file.endswith(LFS):
        found["lfs"] = {"sha256": digest(file, data), "size": len(data), "pointerSize": 130}
    return found


def _chunks(data: bytes) -> Iterator[bytes]:
    for i in range(0, len(data), 1 << 14):
        yield data[i : i + (1 << 14)]
