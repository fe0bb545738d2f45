"""Serve POST /feedback: keep what a person on the page calls right or wrong."""

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from tunerank.core.errors import InputError, explain
from tunerank.serving.judgements import BODY, LONGEST, Feedback, Judgement, parse
from tunerank.serving.limits import Refused

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _texts(name: str) -> dict:
    return {"type": "string", "maxLength": LONGEST[name]}


SCHEMA = {
    "type": "object",
    "required": ["query", "passage", "label"],
    "properties": {
        "query": _texts("query"),
        "passage": {
            "anyOf": [
                _texts("passage"),
                {
                    "type": "object",
                    "required": ["id"],
                    "properties": {"id": _texts("passage"), "text": _texts("text")},
                },
            ]
        },
        "label": {"enum": [1, 0, None], "description": "right, wrong, or withdrawn"},
        "who": _texts("who"),
    },
}


def feedback_router(folder: Path, text_of: Callable[[str], str | None] | None = None) -> APIRouter:
    """Return the router with POST /feedback {query, passage, label, who?}.

    Args:
        folder: gets the files, such as data/feedback.
        text_of: a passage's id -> its text, None for an unknown one. With it the row has this text
            and an unknown passage is refused; without it the row has the text of the request.
    """
    router, feedback = APIRouter(), Feedback(folder)

    def keep(judgement: Judgement) -> None:
        if text_of is not None:
            text = text_of(judgement.uuid)
            if text is None:
                raise Refused(404, "passage: the corpus has no such id")
            judgement = replace(judgement, doc=text)
        feedback.keep(judgement)

    @router.post(
        "/feedback",
        summary="Call a passage right or wrong for a query",
        openapi_extra={"requestBody": {"content": {"application/json": {"schema": SCHEMA}}}},
    )
    async def judge(request: Request) -> JSONResponse:
        try:
            judgement = parse(await _body(request))
            await run_in_threadpool(keep, judgement)
        except Refused as refused:
            raise HTTPException(refused.status, refused.line, refused.headers) from None
        except (InputError, OSError) as error:
            full = isinstance(error, OSError) and error.errno in FULL
            message = explain(error, "feedback", "then click again")[0]
            reason = message or f"feedback: {error}"
            raise HTTPException(507 if full else 500, reason) from None
        return JSONResponse({"label": judgement.label})

    return router


async def _body(request: Request) -> bytes:
    """Return a request's body.

    Raises:
        Refused: it is too long, or not declared as JSON. Another site's form could send other types
            from a visitor's browser to this server, JSON it cannot send.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "Content-Type: application/json is needed")
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > BODY:
                raise Refused(413, f"the body is longer than {BODY >> 20} MiB")
    except ClientDisconnect:
        raise Refused(400, "the request broke off") from None
    return bytes(body)
