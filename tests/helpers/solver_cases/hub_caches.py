"""Writes models into a cache in Hugging Face's layout, and serves them as Hugging Face does."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"

MIB = 1 << 20

Files = Mapping[str, bytes]


def model_files(folder: Path) -> dict[str, bytes]:
    """Return the files of a model folder by name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_cached(
    cache: Path, name: str, files: Files, *, commit: str = COMMIT, revision: str | None = "main"
) -> Path:
    """Write a model into a cache, as links into its blobs, and return the snapshot's folder."""
    folder = cache / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    snapshot.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / file).parent.mkdir(parents=True, exist_ok=True)
        depth = len(Path(file).parts) + 1
        (snapshot / file).symlink_to(Path(*[".."] * depth, "blobs", blob.name))
    if revision is not None:
        reference = folder / "refs" / revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit)
    return snapshot


class HubServer(ThreadingHTTPServer):
    """Serves models over HTTP on this machine, and notes which files were fetched.

    Args:
        models: the files of each model, by id. The id `org/gated` may be listed but not read.
        revisions: commits by the name of a branch or tag, for all models.
        pause: seconds to wait after each MiB that is sent.
    """

    daemon_threads = True

    def __init__(
        self, models: Mapping[str, Files], revisions: Mapping[str, str], pause: float = 0
    ) -> None:
        super().__init__(("127.0.0.1", 0), _HubHandler)
        self.models = models
        self.revisions = revisions
        self.pause = pause
        self.fetched: list[str] = []
        self.sent = 0  # full MiB

    @property
    def address(self) -> str:
        """The address to put into HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _HubHandler(BaseHTTPRequestHandler):
    server: HubServer

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        parts = parts[2:] if api else parts
        name, action, rest = "/".join(parts[:2]), (parts[2:3] or [""])[0], parts[3:]
        files = self.server.models.get(name)
        if files is None:
            return self._refuse(404, "RepoNotFound")
        if name == "org/gated":
            return self._refuse(403, "GatedRepo")
        revision = rest[0] if rest else "main"
        commit = self.server.revisions.get(revision, revision)
        if commit not in self.server.revisions.values():
            return self._refuse(404, "RevisionNotFound")
        if api:
            return self._send_json(self._listing(name, action, commit, files))
        path = "/".join(rest[1:])
        if path not in files:
            return self._refuse(404, "EntryNotFound")
        if self.command == "GET":
            self.server.fetched.append(path)
        etag = hashlib.sha256(files[path]).hexdigest()
        return self._send(files[path], {"ETag": f'"{etag}"', "X-Repo-Commit": commit})

    def _listing(self, name: str, action: str, commit: str, files: Files) -> object:
        if action == "tree":
            return [
                {"type": "file", "path": path, "size": len(content), "oid": _sha1(content)}
                for path, content in files.items()
            ]
        return {"id": name, "sha": commit, "siblings": [{"rfilename": path} for path in files]}

    def _send_json(self, content: object) -> None:
        self._send(json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str) -> None:
        self._send(b"", {"X-Error-Code": code, "X-Error-Message": code}, status)

    def _send(self, content: bytes, headers: Mapping[str, str], status: int = 200) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "GET":
            return
        with suppress(ConnectionError):  # the client may have been interrupted
            for begin in range(0, len(content), MIB):
                self.wfile.write(content[begin : begin + MIB])
                if len(content) - begin >= MIB:
                    self.server.sent += 1
                    time.sleep(self.server.pause)


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


@contextmanager
def serve_models(
    models: Mapping[str, Files], revisions: Mapping[str, str] | None = None, pause: float = 0
) -> Iterator[HubServer]:
    """Serve models until the block ends."""
    server = HubServer(models, revisions or {"main": COMMIT}, pause)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
