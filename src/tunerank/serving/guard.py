"""What every request passes before it reaches a route: key, host, size and time limits.

A body is read completely, and counted as it arrives, before a route is called. A request that is
refused before that is not read to its end, unless little is left: a client that is still sending
would see a broken connection in place of the answer.
"""

import asyncio
import hmac
import time
import traceback
from collections.abc import Callable, Collection

from starlette.responses import JSONResponse

from tunerank.serving.limits import Gone, Limits, Refused
from tunerank.serving.metrics import Metrics
from tunerank.serving.protocols import protocol_of

LINGER = 2.0
"""Seconds for a client to finish sending a request that is refused."""

SMALL = 64 << 10
"""Bytes of a body that is always taken: large ones must not lock out the others."""


class Upload:
    """The body of one request.

    complete: nothing of it is left to be read; reserved: bytes of memory that it was promised.
    """

    def __init__(self, scope: dict, receive: Callable):
        self.receive, self.headers = receive, dict(scope["headers"])
        self.length = int(self.headers.get(b"content-length", b"0"))  # h11 has checked it
        self.reserved = 0
        self.complete = scope["method"] in ("GET", "HEAD")

    async def parts(self):
        """Yield the parts of the body.

        Raises:
            Gone: the client has closed its connection.
        """
        while not self.complete:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise Gone
            self.complete = not message.get("more_body", False)
            yield message.get("body", b"")

    async def discard(self, most: int) -> None:
        """Read and forget what is left, for a moment and up to `most` bytes."""
        if self.headers.get(b"expect", b"").lower() == b"100-continue":
            return  # the client waits for a word before it sends the body
        try:
            async with asyncio.timeout(LINGER):
                async for part in self.parts():
                    most -= len(part)
                    if most < 0:
                        return
        except TimeoutError:
            return


class Guard:
    """An ASGI application around another one.

    Args:
        paths: of the routes, for the metrics.
        key: what `Authorization: Bearer` must name; None: nobody is asked.
        hosts: the names in `Host` that are answered; None: all. Without a key a page of another
            site could ask this server in a visitor's browser, under a name that it lets point here.
        public: paths that need no key.
    """

    def __init__(
        self,
        app: Callable,
        limits: Limits,
        metrics: Metrics,
        paths: Collection[str],
        key: str | None = None,
        hosts: Collection[str] | None = None,
        public: Collection[str] = (),
    ):
        self.app, self.limits, self.metrics, self.paths = app, limits, metrics, set(paths)
        self.key = None if key is None else key.encode()
        self.hosts, self.public = hosts, {"/health", *public}
        self.buffered = 0
        self.stopping: Callable[[], bool] = lambda: False
        metrics.gauge("body_bytes", "Bytes of bodies in memory", lambda: self.buffered)

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start, status, body = time.perf_counter(), 0, bytearray()
        upload = Upload(scope, receive)

        async def answer(message: dict) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.ends(scope, upload):
                    headers = [*message["headers"], (b"connection", b"close")]
                    message = message | {"headers": headers}
            await send(message)

        async def given() -> dict:
            nonlocal sent
            if sent:
                return await receive()  # returns when the client is gone
            sent, content = True, bytes(body)
            body.clear()
            return {"type": "http.request", "body": content, "more_body": False}

        sent = False
        try:
            try:
                self.admit(scope, upload)
                await self.read(upload, body)
                await self.app(scope, given, answer)
            except Refused as refused:
                await self.refuse(scope, upload, refused, answer)
            except asyncio.CancelledError:
                if not status:
                    await self.refuse(scope, upload, Refused(503, "the server stops", 1), answer)
            except Gone:
                pass
            except Exception:
                traceback.print_exc()
                if not status:
                    refused = Refused(500, "unexpected error; the server's log has it")
                    await self.refuse(scope, upload, refused, answer)
        except Gone:
            pass
        finally:
            self.buffered -= upload.reserved
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.metrics.answered(path, status or 499, time.perf_counter() - start)

    def ends(self, scope: dict, upload: Upload) -> bool:
        """Return whether the connection ends with this answer, which the client must be told.

        One that was over the limit would stay refused, however few there are later.
        """
        over = scope.get("state", {}).get("too_many")
        return bool(over) or self.stopping() or not upload.complete

    def admit(self, scope: dict, upload: Upload) -> None:
        """Check what the headers say.

        Raises:
            Refused: the request is not answered here.
        """
        if self.stopping():
            raise Refused(503, "the server stops", 1)
        if scope.get("state", {}).get("too_many"):
            raise Refused(429, "too busy: too many connections", 1)
        host = upload.headers.get(b"host", b"localhost").decode("latin-1").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self.hosts is not None and name.strip("[]") not in self.hosts:
            raise Refused(403, "without TUNERANK_API_KEY only requests to localhost are answered")
        if self.key is not None and scope["path"] not in self.public:
            scheme, _, key = upload.headers.get(b"authorization", b"").partition(b" ")
            if not hmac.compare_digest(key.strip(), self.key) or scheme.lower() != b"bearer":
                raise Refused(401, "Authorization: Bearer and the key of this server are needed")
        self.reserve(upload, upload.length)

    def reserve(self, upload: Upload, size: int) -> None:
        """Keep memory for a body of `size` bytes.

        What was announced is kept at once. Else many uploads would fill the memory together, and
        all of them would be refused.

        Raises:
            Refused: it is too long, or there are too many at once.
        """
        if size > self.limits.body:
            raise Refused(413, f"the body is longer than {self.limits.body} bytes")
        more = max(0, size - upload.reserved)
        if more and size > SMALL and self.buffered + more > self.limits.bodies:
            raise Refused(429, "too busy: too many bytes of requests in memory", 1)
        upload.reserved += more
        self.buffered += more

    async def read(self, upload: Upload, body: bytearray) -> None:
        """Read a body into `body`.

        Raises:
            Refused: it is too long, too slow, or there are too many at once.
            Gone: the client has closed its connection.
        """
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for part in upload.parts():
                    self.reserve(upload, len(body) + len(part))
                    body += part
        except TimeoutError:
            line = f"the body has not arrived within {self.limits.body_seconds:g} s"
            raise Refused(408, line) from None

    async def refuse(self, scope: dict, upload: Upload, refused: Refused, answer: Callable) -> None:
        """Answer with an error, after a moment for a client that is still sending its request."""
        await upload.discard(2 * self.limits.body)
        content = protocol_of(scope["path"]).error(refused.status, refused.line)
        response = JSONResponse(content, refused.status, refused.headers)
        await response(scope, upload.receive, answer)
