"""Serve the page at `/`, on which a person compares the systems for a query.

page.html has its styles, its script and the strings of both languages. It asks `search` and, with
feedback, `feedback`, both beside the page's own address, and nothing else: the policy says so.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

TEMPLATE = Path(__file__).with_name("page.html")
SETTINGS = "{{ settings }}"
"""Where the template gets the settings, in an attribute: the script's hash stays the same."""

COMPARED = ("dense", "base", "reranker", "fused")
"""The systems that are shown at first, as far as there are such; others can be chosen."""


def render(systems: Sequence[str], feedback: bool) -> str:
    """Return the page.

    Args:
        systems: what `search` can rank by.
        feedback: whether passages have the buttons "right" and "wrong".

    Raises:
        ValueError: there is no system.
    """
    if not systems:
        raise ValueError("a page without systems has nothing to show")
    shown = [name for name in COMPARED if name in systems] or [systems[0]]
    settings = {
        "systems": [*shown, *(name for name in systems if name not in shown)],
        "shown": shown,
        "feedback": feedback,
    }
    text = TEMPLATE.read_text(encoding="utf-8")
    return text.replace(SETTINGS, html.escape(json.dumps(settings)), 1)


def policy(page: str) -> str:
    """Return the Content-Security-Policy of a page: its own script and styles, and this server.

    A browser compares the text of each element, with line feeds, with these hashes
    (https://www.w3.org/TR/CSP3/#match-element-to-source-list).
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hashes(page, 'script')}",
            f"style-src {_hashes(page, 'style')}",
            "connect-src 'self'",
            "img-src data:",  # the empty icon, so that the browser asks for none
            "base-uri 'none'",
            "form-action 'none'",  # the script sends the query, never the browser itself
            "frame-ancestors 'none'",  # no other site can lay its own buttons over ours
        )
    )


def _hashes(page: str, element: str) -> str:
    found = re.findall(f"<{element}>(.*?)</{element}>", page, re.DOTALL)
    digests = (hashlib.sha256(text.encode()).digest() for text in found)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


def page_router(searcher_systems: Sequence[str], feedback: bool) -> APIRouter:
    """Return the router with GET /.

    Args:
        searcher_systems: `Searcher.systems`.
        feedback: whether `feedback_router` is there too.
    """
    page = render(searcher_systems, feedback)
    headers = {
        "Content-Security-Policy": policy(page),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",  # the address has the query
        "Cache-Control": "no-cache",
    }
    router = APIRouter()

    @router.get("/", response_class=HTMLResponse, include_in_schema=False)
    def try_it() -> HTMLResponse:
        return HTMLResponse(page, headers=headers)

    return router
