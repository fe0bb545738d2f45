"""Connections: their number, and the time that a client may take to send a request's headers."""

import asyncio
import json
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import ClassVar

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from tunerank.core.errors import InputError
from tunerank.serving.guard import Guard
from tunerank.serving.limits import Limits, Refused

GRACE = 60
"""Seconds for what is being answered when the server is told to stop."""


class Connection(H11Protocol):
    """uvicorn's connection, which has no limit of its own for any of this.

    A client that does not send its headers, drips them, or does not read its answer, is cut off.
    """

    limits: ClassVar[Limits]

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.deadline: asyncio.TimerHandle | None = None
        self.unread: asyncio.TimerHandle | None = None
        if len(self.connections) > 2 * self.limits.connections:
            transport.abort()
            return
        if len(self.connections) > self.limits.connections:
            self.app_state = self.app_state | {"too_many": True}  # guard.py answers
        self.wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self.headers_are_here()
        self.taken()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self.wait_for_headers()
        else:
            self.headers_are_here()

    def wait_for_headers(self) -> None:
        if self.deadline is None and not self.transport.is_closing():
            self.deadline = self.loop.call_later(self.limits.header_seconds, self.too_slow)

    def headers_are_here(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    def too_slow(self) -> None:
        self.deadline = None
        if self.transport.is_closing():
            return
        if self.conn.our_state is h11.IDLE:
            line = f"no request has arrived within {self.limits.header_seconds:g} s"
            self.transport.write(closing(Refused(408, line)))
        self.close()

    def send_400_response(self, msg: str) -> None:
        self.transport.write(closing(Refused(400, "this is not an HTTP/1.1 request")))
        self.close()

    def close(self) -> None:
        """Close the connection soon, even if the client does not take what it was sent."""
        self.transport.close()
        self.wait_for_reader()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self.close()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.wait_for_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.taken()

    def wait_for_reader(self) -> None:
        if self.unread is None:
            self.unread = self.loop.call_later(self.limits.answer_seconds, self.transport.abort)

    def taken(self) -> None:
        if self.unread is not None:
            self.unread.cancel()
            self.unread = None


def closing(refused: Refused) -> bytes:
    """Return the last answer on a connection, to bytes that are not a request."""
    body = json.dumps({"detail": refused.line}).encode()
    lines = [
        f"HTTP/1.1 {refused.status} {HTTPStatus(refused.status).phrase}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def resolved(host: str, port: int) -> tuple[socket.AddressFamily, tuple]:
    """Return family and address of a host, such as 127.0.0.1 or localhost.

    Raises:
        InputError: there is no such address.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise InputError(f"--host {host}: no such address; give one of this machine") from None
    return found[0][0], found[0][4]


def bound(family: socket.AddressFamily, address: tuple) -> socket.socket:
    """Return a socket at an address. Nobody can connect before the server listens.

    Raises:
        InputError: it is taken, or not of this machine.
    """
    taken = socket.socket(family, socket.SOCK_STREAM)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
    except OSError as error:
        taken.close()
        where = f"{address[0]}, port {address[1]}"
        raise InputError(f"{where}: {error.strerror}; --port 0 takes a free one") from None
    return taken


class Server(uvicorn.Server):
    """A server of `guard`, with `ready` called when it listens.

    `run(sockets=[...])` ends on SIGTERM or Ctrl-C, after what is being answered: new connections
    are refused, and so are new requests on old ones.
    """

    def __init__(self, guard: Guard, ready: Callable[[], None] = lambda: None):
        limits, self.ready = guard.limits, ready
        config = uvicorn.Config(
            guard,
            http=type("LimitedConnection", (Connection,), {"limits": limits}),
            loop="asyncio",
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=2 * limits.connections,
            timeout_keep_alive=limits.idle_seconds,
            timeout_graceful_shutdown=GRACE,
        )
        super().__init__(config)
        guard.stopping = lambda: self.should_exit

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready()
