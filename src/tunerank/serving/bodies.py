"""Read a request's JSON. What is in it is counted before any of it is made.

An empty list is 3 bytes in JSON and 64 in memory: a few megabytes of them would take hundreds, and
seconds in which the server answers nobody.
"""

import json
import re
from itertools import islice
from typing import Any

from tunerank.serving.limits import Refused

PIECE = re.compile(r'"[^"]*"?|[,\[{]')
"""A string, or what begins another value. No quotes are left in strings where it is used."""


def loaded(body: bytes, most: int) -> Any:
    """Return the value of a JSON text, as `json.loads` does.

    Args:
        most: strings, commas and opening brackets; those in strings do not count.

    Raises:
        Refused: there are more.
        ValueError, RecursionError: it is no JSON.
    """
    text = body.decode(json.detect_encoding(body), "surrogatepass")
    if sum(map(text.count, '",[{')) > most:
        pieces = PIECE.finditer(text.replace("\\\\", "").replace('\\"', ""))
        if next(islice(pieces, most, None), None):
            raise Refused(413, f"the body has more than {most} keys and values")
    return json.loads(text)
