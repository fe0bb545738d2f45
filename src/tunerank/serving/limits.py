"""What a server accepts, and how it refuses the rest."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The bounds of one server; together they bound its memory.

    texts: of one request; characters: of one text; query: characters of a search's query.
    body: bytes of one request; bodies: bytes of all requests that are being read or answered.
    values: strings, commas and opening brackets of one request's JSON.
    requests, pairs: waiting or being scored. A view of a document with the query is a pair.
    connections: answered; as many more are told that there are too many.
    header_seconds, body_seconds: for a client to send, answer_seconds: to take what it asked for.
    idle_seconds: between an answer and the next request. Proxies such as nginx keep a connection
    for 60 s; a server that closes it before loses the request that comes at this moment.
    """

    texts: int = 1000
    characters: int = 100_000
    query: int = 10_000
    body: int = 8 << 20
    bodies: int = 64 << 20
    values: int = 100_000
    requests: int = 64
    pairs: int = 2048
    connections: int = 1024
    header_seconds: float = 10
    body_seconds: float = 30
    answer_seconds: float = 30
    idle_seconds: float = 75


class Refused(Exception):
    """A request that is answered with an error.

    Args:
        status: of HTTP; line: what is wrong and what to do, without the request's own text.
        retry_after: seconds until it is worth another try.
    """

    def __init__(self, status: int, line: str, retry_after: int | None = None):
        super().__init__(line)
        self.status, self.line, self.retry_after = status, line, retry_after

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the answer."""
        if self.status == 401:
            return {"www-authenticate": "Bearer"}
        return {} if self.retry_after is None else {"retry-after": str(self.retry_after)}


class Gone(Exception):
    """The client has closed its connection, so nobody would read an answer."""
