"""The protocols of rerank servers: what they ask, what they are answered, and how errors look.

text-embeddings-inference, /rerank with `texts`:
    https://github.com/huggingface/text-embeddings-inference/blob/main/docs/openapi.json
Infinity, /rerank with `documents`: a document in the answer is a string
    https://github.com/michaelfeil/infinity (infinity_emb/fastapi_schemas/pymodels.py)
vLLM, the same path: a document in the answer is an object, and always there
    https://github.com/vllm-project/vllm (vllm/entrypoints/pooling/scoring/protocol.py)
Jina, /v1/rerank: https://api.jina.ai/redoc#tag/rerank
Cohere, /v1/rerank and /v2/rerank: https://docs.cohere.com/reference/rerank

Two protocols share a path twice. Their answers differ only where a field has no place in the other,
so both are given; a client that names `return_documents` on /rerank speaks Infinity's protocol.
"""

import math
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tunerank.serving.asked import Asked, Documents, Texts
from tunerank.serving.jobs import Scored


@dataclass(frozen=True)
class Protocol:
    """asked: the request; answer: (request, scores, name of the model) -> JSON.

    error: (status, line) -> JSON; invalid: the status of a request with a wrong field.
    """

    asked: type[Asked]
    answer: Callable[[Any, Scored, str], Any]
    error: Callable[[int, str], Any]
    invalid: int = 400


def sigmoid(logit: float) -> float:
    """Return a score between 0 and 1 that depends on this logit alone.

    >>> sigmoid(0.0), sigmoid(-1000.0), sigmoid(1000.0)
    (0.5, 0.0, 1.0)
    """
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    return math.exp(logit) / (1 + math.exp(logit))


def ranked(asked: Any, scored: Scored, key: str) -> list[dict]:
    """Return index and score of the best documents; equal scores keep the order given."""
    order = sorted(range(len(scored.logits)), key=lambda index: -scored.logits[index])
    top = getattr(asked, "top_n", None) or len(order)
    score = float if asked.raw_scores else sigmoid
    return [{"index": index, key: score(scored.logits[index])} for index in order[:top]]


def usage(scored: Scored) -> dict:
    cut = scored.cut + scored.query_cut
    return {"prompt_tokens": scored.tokens, "total_tokens": scored.tokens, "truncated_texts": cut}


def meta(scored: Scored, version: str) -> dict:
    """Return what Cohere says beside the results; `warnings` counts the texts that were cut."""
    described: dict = {
        "api_version": {"version": version},
        "tokens": {"input_tokens": scored.tokens, "output_tokens": 0},
    }
    if scored.cut or scored.query_cut:
        what = ["the query"] * scored.query_cut + [f"{scored.cut} documents"] * bool(scored.cut)
        described["warnings"] = [f"not read to the end: {' and '.join(what)}"]
    return described


def answer_tei(asked: Texts, scored: Scored, name: str) -> list[dict]:
    rows = ranked(asked, scored, "score")
    if asked.return_text:
        for row in rows:
            row["text"] = asked.given[row["index"]].text
    return rows


def answer_infinity(asked: Documents, scored: Scored, name: str) -> dict:
    rows = ranked(asked, scored, "relevance_score")
    for row in rows:
        text = asked.given[row["index"]].text
        if asked.return_documents is not False:
            row["document"] = text if asked.return_documents else {"text": text}
    return {
        "object": "rerank",
        "id": f"rerank-{uuid.uuid4()}",
        "model": name,
        "created": int(time.time()),
        "usage": usage(scored),
        "results": rows,
    }


def with_documents(asked: Documents, scored: Scored, default: bool) -> list[dict]:
    rows = ranked(asked, scored, "relevance_score")
    if default if asked.return_documents is None else asked.return_documents:
        for row in rows:
            row["document"] = {"text": asked.given[row["index"]].text}
    return rows


def answer_v1(asked: Documents, scored: Scored, name: str) -> dict:
    return {
        "object": "list",
        "id": str(uuid.uuid4()),
        "model": name,
        "usage": usage(scored),
        "results": with_documents(asked, scored, default=True),
        "meta": meta(scored, "1"),
    }


def answer_v2(asked: Documents, scored: Scored, name: str) -> dict:
    return {
        "id": str(uuid.uuid4()),
        "results": with_documents(asked, scored, default=False),
        "meta": meta(scored, "2"),
    }


KINDS = {429: "overloaded", 503: "unhealthy", 500: "backend"}
TEI = Protocol(
    Texts,
    answer_tei,
    lambda status, line: {"error": line, "error_type": KINDS.get(status, "validation")},
    invalid=422,
)
INFINITY = Protocol(
    Documents,
    answer_infinity,
    lambda status, line: {
        "error": {
            "message": line,
            "type": "server_error" if status >= 500 else "invalid_request_error",
            "param": None,
            "code": status,
        }
    },
)
V1 = Protocol(Documents, answer_v1, lambda status, line: {"message": line, "detail": line})
V2 = Protocol(Documents, answer_v2, lambda status, line: {"message": line})
OWN = Protocol(Asked, lambda *_: None, lambda status, line: {"detail": line})
"""Of the paths that are this server's own: errors look like FastAPI's."""

BY_PATH = {"/rerank": INFINITY, "/v1/rerank": V1, "/v2/rerank": V2}


def protocol_of(path: str) -> Protocol:
    """Return the protocol of a path; that of /rerank is known when the body has `texts`."""
    return BY_PATH.get(path, OWN)
