"""Answer requests by the worker: what they ask becomes a job, its result an answer."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from tunerank.data.passages import Passage
from tunerank.serving.asked import SearchFor, checked
from tunerank.serving.jobs import Job, Rerank, Scored, Search
from tunerank.serving.limits import Gone, Limits, Refused
from tunerank.serving.metrics import Metrics
from tunerank.serving.protocols import Protocol
from tunerank.serving.scoring import Scorer
from tunerank.serving.worker import Worker

UNNAMED = (None, "", "default/not-specified")
"""What clients send as `model` that name none; the last one is Infinity's default."""


@dataclass
class Service:
    """What a server serves.

    names: of the model, the first one is in the answers.
    whole: documents are read whole unless a request says otherwise; else as Ranker reads them.
    searcher: a Searcher, or None.
    """

    names: list[str]
    scorer: Scorer
    whole: bool
    searcher: Any
    limits: Limits
    metrics: Metrics
    worker: Worker

    @classmethod
    def of(
        cls, ranker: Any, names: Iterable[str], whole: bool, searcher: Any, limits: Limits
    ) -> "Service":
        """Wrap a Ranker, and a Searcher with the same model or None."""
        scorer, metrics = Scorer(ranker), Metrics()
        worker = Worker(scorer, searcher, limits, metrics)
        return cls(list(dict.fromkeys(names)), scorer, whole, searcher, limits, metrics, worker)

    async def done(self, request: Request, job: Job) -> Any:
        """Return the result of a job; if the client goes away before, the job is given up.

        Raises:
            Gone: it went away; Refused: the queue is full, or the job failed.
        """
        self.worker.submit(job)
        result, gone = asyncio.wrap_future(job.future), asyncio.create_task(request.receive())
        try:
            await asyncio.wait({result, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not result.done():
                raise Gone
            return result.result()
        finally:
            result.cancel()
            job.future.cancel()
            gone.cancel()

    async def rerank(self, request: Request, protocol: Protocol, body: dict) -> JSONResponse:
        """Answer a request for scores in its protocol."""
        asked = checked(protocol.asked, body, self.limits, protocol.invalid)
        body.clear()  # the request may wait long, and the rest of its body may be large
        if asked.model not in (*UNNAMED, *self.names):
            raise Refused(404, f"model: here is only {', '.join(self.names)}")
        passages = [Passage(one.title.strip(), one.text.strip()) for one in asked.given]
        whole = self.whole if asked.whole is None else asked.whole
        job = Rerank(
            asked.query.strip(),
            passages,
            whole,
            getattr(asked, "max_tokens_per_doc", None),
            cost=self.scorer.count(passages, whole),
        )
        scored: Scored = await self.done(request, job)
        cut = str(scored.cut + scored.query_cut)
        content = protocol.answer(asked, scored, self.names[0])
        return JSONResponse(content, headers={"x-truncated-texts": cut})

    async def search(self, request: Request, body: dict) -> JSONResponse:
        """Answer a search.

        Raises:
            Refused: there is nothing to search, or no such system.
        """
        if self.searcher is None:
            raise Refused(
                404,
                "nothing to search here: serve a repository after dvc repro (tunerank serve .) or "
                "a folder of tunerank export",
            )
        asked = checked(SearchFor, body, self.limits)
        body.clear()
        if asked.system not in self.searcher.systems:
            raise Refused(400, f"system: here are {', '.join(self.searcher.systems)}")
        search = Search(asked.query.strip(), asked.top_k, asked.system, asked.candidates)
        found = await self.done(request, search)
        names = ("rank", "passage", "title", "text", "score", "scores", "span")
        results = [{name: getattr(one, name) for name in names} for one in found]
        return JSONResponse({"system": asked.system, "results": results})

    def about(self) -> dict:
        """Return what is served; text-embeddings-inference's names where it has them."""
        return {
            "model_id": self.names[0],
            "names": self.names,
            "max_input_length": self.scorer.max_length,
            "max_batch_tokens": self.scorer.encoder.batch_tokens,
            "max_client_batch_size": self.limits.texts,
            "whole": self.whole,
            "systems": list(self.searcher.systems) if self.searcher else [],
            "version": version("tunerank"),
        }

    def models(self) -> dict:
        """Return the names in the form of OpenAI, which Infinity and vLLM take over."""
        models = [{"id": name, "object": "model", "owned_by": "tunerank"} for name in self.names]
        return {"object": "list", "data": models}
