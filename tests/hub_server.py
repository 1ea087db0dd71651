"""A hub on loopback, as far as `huggingface_hub` needs one: files of repositories at revisions.

Run it with a folder; the first line it prints is its address, for `HF_ENDPOINT`:

    ROOT/datasets/vidore/pages/main/data/train-00000-of-00001.parquet
    ROOT/datasets/vidore/pages/v1/...        another revision of the same repository
    ROOT/models/some/model/main/config.json

A folder below a repository is a branch or tag; its commit is a hash of its files. It answers
what lists a repository, resolves a revision and hands out files (with ETag, commit and ranges).
Parquet files and weights are known by their SHA-256, as the hub knows large files. A subclass may
ask for tokens, and misbehave (`faults`). It needs the standard library alone.
"""

import hashlib
import json
import re
import sys
import threading
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit


def commit_of(revision_folder: Path) -> str:
    """Forty hexadecimal digits that change with the files, or those that the folder is called."""
    if re.fullmatch("[0-9a-f]{40}", revision_folder.name):
        return revision_folder.name
    digest = hashlib.sha1()
    for file in files_of(revision_folder):
        digest.update(file.relative_to(revision_folder).as_posix().encode())
        digest.update(etag_of(file).encode())
    return digest.hexdigest()


def files_of(folder: Path) -> list[Path]:
    """All files below a folder, in order of their names."""
    return sorted(file for file in folder.rglob("*") if file.is_file())


@cache
def etag_of(file: Path) -> str:
    """SHA-256 of a file, as the hub has it for large files."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


class MissingError(Exception):
    """What was asked for is not there; says so in the hub's own words."""


class Hub(BaseHTTPRequestHandler):
    """Answers of the hub.

    Attributes:
        root: Folder of the repositories.
        tokens: Repository to the access token that it asks for.
        gated: Repositories that ask for an agreement first.
        faults: End of an address to what goes wrong there: an HTTP status; `half` (the connection
            closes half-way), `half-again` (the same, and never on from the middle), `short` (a
            length that is not the file's), `other` (other bytes of the same length), or `silent`
            (no answer in `patience` seconds). The last that fits counts.
        patience: Seconds.
    """

    protocol_version = "HTTP/1.1"
    root: Path
    tokens: dict[str, str] = {}  # noqa: RUF012
    gated: tuple[str, ...] = ()
    faults: dict[str, int | str] = {}  # noqa: RUF012
    patience = 5.0

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def do_POST(self):
        self.posted = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(with_body=True)

    def log_message(self, *arguments):
        print(self.command, self.path, file=sys.stderr, flush=True)

    def answer(self, with_body):
        address = urlsplit(self.path)
        parts = [unquote(part) for part in address.path.strip("/").split("/")]
        query = parse_qs(address.query)
        self.fault = None
        for end, fault in self.faults.items():
            if address.path.endswith(end):
                self.fault = fault
        if self.fault == "silent":
            threading.Event().wait(self.patience)
        if isinstance(self.fault, int):
            self.send(self.fault, b"it does not work", {}, with_body)
            return
        try:
            if parts[0] == "api" and parts[1] in ("datasets", "models"):
                self.send_json(self.api(parts[1], parts[2:], query), with_body)
            elif "resolve" in parts:
                self.resolve(parts, with_body)
            else:
                raise MissingError("EntryNotFound")
        except MissingError as missing:
            code = str(missing)
            # The hub does not tell strangers which private repositories there are.
            status = {"RepoNotFound": 401, "GatedRepo": 403}.get(code, 404)
            self.send(status, b"", {"X-Error-Code": code}, with_body)

    def api(self, kind, parts, query):
        verbs = [place for place, part in enumerate(parts) if part in VERBS and place > 0]
        at = verbs[0] if verbs else len(parts)
        repository = self.repository(kind, parts[:at])
        verb = parts[at] if verbs else "revision"
        name = parts[at + 1] if len(parts) > at + 1 else "main"
        revision = self.revision(repository, name)
        inside = parts[at + 2 :]
        if verb == "revision":
            return {
                "id": "/".join(parts[:at]),
                "sha": commit_of(revision),
                "private": False,
                "gated": False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": [self.sibling(revision, file) for file in files_of(revision)],
            }
        if verb == "tree":
            recursive = query.get("recursive", ["false"])[0].lower() == "true"
            return self.tree(revision, revision.joinpath(*inside), recursive)
        if verb == "paths-info":
            asked = parse_qs(self.posted.decode()).get("paths", [])
            if self.posted[:1] == b"{":
                asked = json.loads(self.posted)["paths"]
            places = [revision / path for path in asked]
            return [self.entry(revision, place) for place in places if place.exists()]
        raise MissingError("EntryNotFound")

    def sibling(self, revision, file):
        size = file.stat().st_size
        about = {"rfilename": file.relative_to(revision).as_posix(), "size": size}
        if file.suffix in LARGE:
            about["lfs"] = {"sha256": etag_of(file), "size": size, "pointerSize": 130}
        return about

    def tree(self, revision, folder, recursive):
        if not folder.is_dir():
            raise MissingError("EntryNotFound")
        places = folder.rglob("*") if recursive else folder.iterdir()
        return [self.entry(revision, place) for place in sorted(places)]

    def entry(self, revision, place):
        path = place.relative_to(revision).as_posix()
        if place.is_dir():
            return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
        return {
            "type": "file",
            "path": path,
            "oid": etag_of(place)[:40],
            "size": place.stat().st_size,
        }

    def resolve(self, parts, with_body):
        kind = "datasets" if parts[0] == "datasets" else "models"
        at = parts.index("resolve")
        repository = self.repository(kind, parts[1 if kind == "datasets" else 0 : at])
        revision = self.revision(repository, parts[at + 1])
        file = revision.joinpath(*parts[at + 2 :])
        if not file.is_file():
            raise MissingError("EntryNotFound")
        content = file.read_bytes()
        headers = {"ETag": f'"{etag_of(file)}"', "X-Repo-Commit": commit_of(revision)}
        headers["Accept-Ranges"] = "bytes"
        if self.fault == "short":
            content = content[: len(content) // 2]
        if self.fault == "other":
            content = bytes(byte ^ 1 for byte in content)
        if self.fault == "half-again":
            del self.headers["Range"]
        wanted = self.headers.get("Range")
        if wanted:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            end = int(wanted.partition("-")[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            self.send(206, content[start : end + 1], headers, with_body)
        else:
            self.send(200, content, headers, with_body)

    def repository(self, kind, parts):
        folder = (self.root / kind).joinpath(*parts)
        name = "/".join(parts)
        token = self.tokens.get(name)
        is_allowed = token is None or self.headers.get("Authorization") == f"Bearer {token}"
        if not parts or not (folder / "main").is_dir() or not is_allowed:
            raise MissingError("RepoNotFound")
        if name in self.gated:
            raise MissingError("GatedRepo")
        return folder

    def revision(self, repository, name):
        for folder in sorted(repository.iterdir()):
            if name in (folder.name, commit_of(folder)):
                return folder
        raise MissingError("RevisionNotFound")

    def send_json(self, value, with_body):
        body = json.dumps(value).encode()
        self.send(200, body, {"Content-Type": "application/json"}, with_body)

    def send(self, status, body, headers, with_body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body and str(self.fault).startswith("half"):
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif with_body:
            self.wfile.write(body)


VERBS = ("revision", "tree", "paths-info")
LARGE = (".parquet", ".safetensors", ".bin")


def main():
    Hub.root = Path(sys.argv[1]).resolve()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
