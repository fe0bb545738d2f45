"""A local Hugging Face Hub that serves the real huggingface_hub client over HTTP.

    with Hub() as hub, Client(hub, tmp_path) as client:
        hub.add("ann/model", {"config.json": b"{}"}, gated=True)
        client.run("src/fetch.py", *arguments, cwd=project, token="hf_ann")

It has repositories with immutable commits, one branch, tags, private and gated access, tokens with
rights, large files by Git LFS on a second host, Range requests, and faults on demand.
huggingface_hub reads HF_ENDPOINT when it is imported, so scripts run in another process. Routes and
errors are those that version 2.4 of the client uses (hf_raise_for_status).
"""

import base64
import hashlib
import json
import os
import re
import runpy
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml


@dataclass
class Commit:
    files: dict[str, bytes]
    message: str
    parent: str | None

    @property
    def oid(self) -> str:
        listed = {name: hashlib.sha1(content).hexdigest() for name, content in self.files.items()}
        return hashlib.sha1(
            json.dumps([listed, self.message, self.parent], sort_keys=True).encode()
        ).hexdigest()


@dataclass
class Repository:
    private: bool = False
    gated: bool = False
    readers: set[str] = field(default_factory=set)
    """Users, besides the owner, who may read a private or gated repository."""
    commits: list[Commit] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], message: str) -> str:
        self.commits.append(Commit(files, message, self.commits[-1].oid if self.commits else None))
        return self.commits[-1].oid

    def at(self, revision: str) -> Commit | None:
        oid = self.commits[-1].oid if revision == "main" else self.tags.get(revision, revision)
        return next((commit for commit in self.commits if commit.oid == oid), None)


@dataclass
class Fault:
    """A fault of the first `times` requests with a 'METHOD path' that matches `pattern`.

    The Hub answers with `status` and `message`. Or it closes the connection after `cut` bytes of
    the body, and resets it if `reset` is set. Or it waits `pause` seconds: before the answer, or,
    with `after`, after each `after` bytes of the body. It calls `meanwhile` first.
    """

    pattern: str
    times: int = 1
    status: int | None = None
    message: str = ""
    cut: int | None = None
    reset: bool = False
    pause: float = 0.0
    after: int | None = None
    meanwhile: Callable[[], object] | None = None


class Refused(Exception):
    def __init__(self, status: int, message: str, code: str | None = None):
        self.status, self.message, self.code = status, message, code


class Hub:
    """A Hub.

    Attributes:
        tokens: token -> user. A user may write to repositories under their own name. The token
            "hf_reader" is ann's and can only read.
        requests: (method, path, token, Range) of each request, in order.
    """

    def __init__(self):
        self.tokens = {"hf_ann": "ann", "hf_bob": "bob", "hf_reader": "ann"}
        self.clear()

    def clear(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}  # uploaded to LFS, committed or not, by SHA-256
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, str | None, str | None]] = []

    def __enter__(self) -> "Hub":
        handler = type("Bound", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        port = self.server.server_address[1]
        # Two hosts, as the Hub has.
        self.endpoint, self.storage = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()

    def add(self, name: str, files: dict[str, bytes], **access) -> str:
        """Add a commit to a repository, which is created if needed; return the commit's id."""
        if name not in self.repositories:
            self.repositories[name] = Repository(**access)
        return self.repositories[name].commit(
            dict(files), f"commit {len(self.repositories[name].commits)}"
        )

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Return the environment of a process that uses this Hub, without the user's own login."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HF_", "HUGGING"))
        }
        settings = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "PYTHONUTF8": "1",
        }
        return (
            kept
            | settings
            | {"NO_PROXY": "127.0.0.1,localhost"}
            | ({"HF_TOKEN": token} if token else {})
        )


class Client:
    """A process that uses the Hub and runs scripts one after the other.

    A new process for each script would spend seconds on imports.
    """

    def __init__(self, hub: Hub, home: Path):
        self.hub, self.home = hub, home

    def __enter__(self) -> "Client":
        pipe = subprocess.PIPE
        environment = self.hub.environment(self.home)
        self.process = subprocess.Popen(
            [sys.executable, __file__], env=environment, stdin=pipe, stdout=pipe, encoding="utf-8"
        )
        return self

    def __exit__(self, *_) -> None:
        self.process.stdin.close()
        self.process.wait()

    def run(
        self, script: Path | str, *arguments: str, cwd: Path, token: str | None = None
    ) -> subprocess.CompletedProcess:
        """Run `python script arguments`, or `tunerank arguments`, with HF_TOKEN."""
        asked = {
            "script": str(script),
            "arguments": arguments,
            "cwd": str(cwd),
            "token": token,
            "home": str(self.home),
        }
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        code = int(self.process.stdout.readline())
        out, err = ((self.home / name).read_text(encoding="utf-8") for name in ("out", "err"))
        return subprocess.CompletedProcess([script, *arguments], code, out, err)


def serve_client() -> None:
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        asked = json.loads(line)
        for number, name in ((1, "out"), (2, "err")):
            file = os.open(Path(asked["home"], name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, number)
            os.close(file)
        os.chdir(asked["cwd"])
        os.environ.pop("HF_TOKEN", None)
        if asked["token"] is not None:
            os.environ["HF_TOKEN"] = asked["token"]
        sys.argv = [asked["script"], *asked["arguments"]]
        command = asked["script"] == "tunerank"
        sys.path[0] = (
            str(Path(__file__).parent.parent / "src")
            if command
            else str(Path(asked["script"]).parent)
        )
        try:
            runpy.run_module("tunerank", run_name="__main__") if command else runpy.run_path(
                asked["script"], run_name="__main__"
            )
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        print(code, file=answers, flush=True)


ROUTES: list[tuple[str, re.Pattern, str]] = []


def route(method: str, pattern: str):
    def register(function):
        ROUTES.append((method, re.compile(pattern), function.__name__))
        return function

    return register


NAME = r"(?P<name>[^/]+/[^/]+)"
LICENSES = ("apache-2.0", "mit", "other")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_) -> None:
        pass

    def handle_any(self) -> None:
        path = urlsplit(self.path).path
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.hub.requests.append((self.command, self.path, token, self.headers.get("Range")))
        body = self.read_body()
        self.fault = next(
            (
                f
                for f in self.hub.faults
                if f.times and re.search(f.pattern, f"{self.command} {path}")
            ),
            None,
        )
        try:
            if self.fault:
                self.fault.times -= 1
                if self.fault.meanwhile:
                    self.fault.meanwhile()
                if not self.fault.after:
                    time.sleep(self.fault.pause)
                if self.fault.status:
                    raise Refused(self.fault.status, self.fault.message)
            self.user = self.hub.tokens.get(token)
            if token and not self.user:
                raise Refused(401, "Invalid credentials in Authorization header")
            self.writes = token is not None and token != "hf_reader"
            for method, pattern, function in ROUTES:
                if (found := pattern.fullmatch(path)) and method == self.command.replace(
                    "HEAD", "GET"
                ):
                    given = {
                        key: unquote(value) for key, value in found.groupdict().items() if value
                    }
                    return getattr(self, function)(body, **given)
            raise Refused(404, f"no route {self.command} {path}")
        except Refused as refused:
            headers = {"Content-Type": "application/json", "X-Error-Message": refused.message}
            headers |= {"X-Error-Code": refused.code} if refused.code else {}
            self.send(json.dumps({"error": refused.message}).encode(), refused.status, headers)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def send(
        self, content: bytes, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault and self.fault.after:
            for start in range(0, len(content), self.fault.after):
                self.wfile.write(content[start : start + self.fault.after])
                time.sleep(self.fault.pause)
            return
        cut = self.fault.cut if self.fault else None
        self.wfile.write(content[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
            if self.fault.reset:  # closing with a linger of 0 s sends RST
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                self.connection.close()

    def send_json(self, value) -> None:
        self.send(json.dumps(value).encode(), headers={"Content-Type": "application/json"})

    # access

    def seen(self, name: str) -> Repository:
        """Return the repository if the user may know that it exists."""
        found = self.hub.repositories.get(name)
        allowed = found and (not found.private or self.user in found.readers | {name.split("/")[0]})
        if not allowed:
            status, message = (
                (404, "Repository not found")
                if self.user
                else (401, "Invalid username or password.")
            )
            raise Refused(status, message, "RepoNotFound")
        return found

    def readable(self, name: str) -> Repository:
        """Return the repository if the user may read its files."""
        found = self.seen(name)
        if found.gated and self.user not in found.readers | {name.split("/")[0]}:
            message = (
                f"Access to model {name} is restricted and you are not in the authorized list."
            )
            raise Refused(403 if self.user else 401, message, "GatedRepo")
        return found

    def writable(self, name: str) -> Repository:
        found = self.seen(name)
        if not self.writes or self.user != name.split("/")[0]:
            raise Refused(403, "you must use a write token to upload to a repository.")
        return found

    def committed(self, repository: Repository, revision: str) -> Commit:
        if (commit := repository.at(revision)) is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # reading

    @route("GET", "/api/whoami-v2")
    def whoami(self, body: bytes) -> None:
        if not self.user:
            raise Refused(401, "Invalid username or password.")
        self.send_json({"type": "user", "name": self.user, "orgs": []})

    @route("GET", f"/api/models/{NAME}(/revision/(?P<revision>[^/]+))?")
    def info(self, body: bytes, name: str, revision: str = "main") -> None:
        repository = self.seen(name)
        commit = self.committed(repository, revision)
        siblings = [{"rfilename": path} for path in commit.files]
        about = {"private": repository.private, "gated": "manual" if repository.gated else False}
        self.send_json({"id": name, "sha": commit.oid, "siblings": siblings, **about})

    @route("GET", f"/api/models/{NAME}/refs")
    def refs(self, body: bytes, name: str) -> None:
        repository = self.seen(name)
        tags = [
            {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": oid}
            for tag, oid in repository.tags.items()
        ]
        main = {
            "name": "main",
            "ref": "refs/heads/main",
            "targetCommit": repository.commits[-1].oid,
        }
        self.send_json({"branches": [main], "tags": tags, "converts": []})

    @route("GET", f"/api/models/{NAME}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?")
    def tree(self, body: bytes, name: str, revision: str, folder: str = "") -> None:
        """Send the list of all files, as with recursive=true, without folders."""
        commit = self.committed(self.seen(name), revision)
        if folder and not any(path.startswith(f"{folder}/") for path in commit.files):
            raise Refused(404, f"{folder} does not exist", "EntryNotFound")
        entries = []
        for path, content in commit.files.items():
            entry = {"type": "file", "path": path, "size": len(content), "oid": blob(content)}
            if large(path):
                entry["lfs"] = {
                    "oid": hashlib.sha256(content).hexdigest(),
                    "size": len(content),
                    "pointerSize": 134,
                }
            if path.startswith(folder):
                entries.append(entry)
        self.send_json(entries)

    @route("GET", f"/{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
    def resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        commit = self.committed(self.readable(name), revision)
        headers = {"X-Repo-Commit": commit.oid}
        if path not in commit.files:
            self.send(
                b"",
                404,
                headers | {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"},
            )
            return
        content = commit.files[path]
        if not large(path):
            self.send_part(content, headers | {"ETag": f'"{blob(content)}"'})
            return
        key = hashlib.sha256(content).hexdigest()
        self.hub.large[key] = content
        headers |= {
            "X-Linked-Etag": f'"{key}"',
            "X-Linked-Size": str(len(content)),
            "ETag": '"pointer"',
        }
        self.send(b"", 302, headers | {"Location": f"{self.hub.storage}/storage/{key}"})

    @route("GET", "/storage/(?P<key>[0-9a-f]{64})")
    def stored(self, body: bytes, key: str) -> None:
        self.send_part(self.hub.large[key], {"ETag": f'"{key}"'})

    def send_part(self, content: bytes, headers: dict[str, str]) -> None:
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if not found:
            self.send(content, 200, headers | {"Accept-Ranges": "bytes"})
            return
        start = int(found[1])
        self.send(
            content[start:],
            206,
            headers | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"},
        )

    # writing

    @route("POST", "/api/repos/create")
    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        owner = asked.get("organization") or self.user
        if not self.writes or owner != self.user:
            raise Refused(
                403, f'You don\'t have the rights to create a model under the namespace "{owner}"'
            )
        name = f"{owner}/{asked['name']}"
        if name in self.hub.repositories:
            raise Refused(409, "You already created this model repo")
        self.hub.add(
            name,
            {".gitattributes": b"*.safetensors filter=lfs\n"},
            private=asked.get("visibility") == "private",
        )
        self.send_json({"url": f"{self.hub.endpoint}/{name}"})

    @route("POST", "/api/validate-yaml")
    def validate(self, body: bytes) -> None:
        """Check the metadata; only the licence is checked."""
        license = yaml.safe_load(json.loads(body)["content"].split("---\n")[1]).get(
            "license", "other"
        )
        errors = (
            []
            if license in LICENSES
            else [{"message": f'"license" must be one of {", ".join(LICENSES)}'}]
        )
        content = json.dumps({"errors": errors, "warnings": []}).encode()
        self.send(content, 400 if errors else 200, {"Content-Type": "application/json"})

    @route("POST", f"/api/models/{NAME}/preupload/(?P<revision>[^/]+)")
    def preupload(self, body: bytes, name: str, revision: str) -> None:
        commit = self.committed(self.writable(name), revision)
        ignored = commit.files.get(".gitignore", b"").decode().split()
        files = []
        for file in json.loads(body)["files"]:
            path, there = file["path"], commit.files.get(file["path"])
            entry = {
                "path": path,
                "uploadMode": "lfs" if large(path) else "regular",
                "shouldIgnore": path in ignored,
            }
            if there is not None:
                entry["oid"] = hashlib.sha256(there).hexdigest() if large(path) else blob(there)
            files.append(entry)
        self.send_json({"files": files})

    @route("POST", rf"/{NAME}\.git/info/lfs/objects/batch")
    def batch(self, body: bytes, name: str) -> None:
        self.writable(name)
        objects = []
        for entry in json.loads(body)["objects"]:
            if entry["oid"] not in self.hub.large:
                entry = entry | {
                    "actions": {"upload": {"href": f"{self.hub.storage}/storage/{entry['oid']}"}}
                }
            objects.append(entry)
        self.send_json({"transfer": "basic", "objects": objects})

    @route("PUT", "/storage/(?P<key>[0-9a-f]{64})")
    def store(self, body: bytes, key: str) -> None:
        if hashlib.sha256(body).hexdigest() != key:
            raise Refused(400, "the content has another SHA-256")
        self.hub.large[key] = body
        self.send(b"")

    @route("POST", f"/api/models/{NAME}/commit/(?P<revision>[^/]+)")
    def commit(self, body: bytes, name: str, revision: str) -> None:
        repository = self.writable(name)
        head, *operations = [json.loads(line) for line in body.splitlines()]
        if (
            head["value"].get("parentCommit", repository.commits[-1].oid)
            != repository.commits[-1].oid
        ):
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repository.commits[-1].files)
        for operation in operations:
            key, value = operation["key"], operation["value"]
            if key == "deletedFile":
                del files[value["path"]]
            elif key == "lfsFile":
                if len(self.hub.large.get(value["oid"], b"")) != value["size"]:
                    raise Refused(400, f"LFS object {value['oid']} was not uploaded")
                files[value["path"]] = self.hub.large[value["oid"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        oid = repository.commit(files, head["value"]["summary"])
        self.send_json({"commitUrl": f"{self.hub.endpoint}/{name}/commit/{oid}", "commitOid": oid})

    @route("POST", f"/api/models/{NAME}/tag/(?P<revision>[^/]+)")
    def tag(self, body: bytes, name: str, revision: str) -> None:
        repository, tag = self.writable(name), json.loads(body)["tag"]
        commit = self.committed(repository, revision)
        if tag in repository.tags:
            raise Refused(409, "Tag reference exists already")
        repository.tags[tag] = commit.oid
        self.send_json({})


def large(path: str) -> bool:
    return path.endswith((".safetensors", ".bin"))


def blob(content: bytes) -> str:
    """Return the id of a Git object."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


if __name__ == "__main__":
    serve_client()
