"""A server of the tiny model in a thread of the test, and sockets that misbehave."""

import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx2 as httpx

from tunerank.ranker import Ranker
from tunerank.serving.app import application
from tunerank.serving.connections import Server, bound
from tunerank.serving.limits import Limits
from tunerank.serving.service import Service

LOOPBACK = (socket.AF_INET, ("127.0.0.1", 0))


class Running:
    """A server on a free port, from `with` to its end.

    model: batches wait while `gate` is not set, so that a test decides when something is computed.
    """

    def __init__(
        self,
        model: Path,
        limits: Limits = Limits(),
        whole: bool = True,
        searcher=None,
        batch_tokens: int = 2048,
        **options,
    ):
        ranker = searcher.ranker if searcher else Ranker(model, "fp32", batch_tokens)
        ranker.bars = False
        self.gate, self.waiting = threading.Event(), threading.Event()
        self.gate.set()
        logits = ranker.encoder.logits

        def gated(ids):
            self.waiting.set()
            self.gate.wait()
            return logits(ids)

        ranker.encoder.logits = gated
        self.service = Service.of(ranker, ["tiny", "models/tiny"], whole, searcher, limits)
        self.socket = bound(*LOOPBACK)
        self.address = self.socket.getsockname()
        started = threading.Event()
        self.server = Server(application(self.service, **options), started.set)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
        self.thread.start()
        assert started.wait(30)
        self.url = f"http://127.0.0.1:{self.address[1]}"
        self.client = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.gate.set()
        self.client.close()
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()

    def post(self, path: str, body, **options) -> httpx.Response:
        """Send JSON, or bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.post(path, content=content, **options)

    def metric(self, name: str, **labels: str) -> float:
        """Return a value of /metrics; 0.0 if it is not there yet."""
        named = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        start = f"tunerank_{name}{{{named}}} " if labels else f"tunerank_{name} "
        lines = self.client.get("/metrics").text.splitlines()
        return float(next((line for line in lines if line.startswith(start)), "0").split()[-1])

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=30)


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, for a minute at most."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def answer_on(connection: socket.socket) -> tuple[int, bytes]:
    """Return status and body of what a server sends before it closes the connection."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


def request_head(path: str, length: int, *lines: str) -> bytes:
    """Return the headers of a POST request with a body of `length` bytes."""
    head = [f"POST {path} HTTP/1.1", "host: localhost", f"content-length: {length}", *lines]
    return "\r\n".join([*head, "", ""]).encode()
