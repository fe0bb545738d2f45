"""One thread with the model: it scores the requests that are waiting together, and no others.

Pairs of all waiting requests are in one pool. A step takes as many pairs of similar length as fill
one batch a thread, so a request that arrives while others are being scored joins the next step, and
one that was given up is dropped before it. Steps begin by turns with the oldest request and with
the one that has least left: a small request does not wait for a large one, and no request waits for
ever.
"""

import math
import threading
import time
from collections.abc import Sequence
from typing import Any

from tunerank.serving.jobs import Job, Rerank, Scored, Search, fail, finish
from tunerank.serving.limits import Limits, Refused
from tunerank.serving.metrics import Metrics
from tunerank.serving.scoring import Scorer

TOGETHER = 16
"""Searches that are made in one call."""


class Worker:
    """The thread, and the queue before it.

    Args:
        searcher: a Searcher with the same model, or None.
    """

    def __init__(self, scorer: Scorer, searcher: Any, limits: Limits, metrics: Metrics):
        self.scorer, self.searcher, self.limits, self.metrics = scorer, searcher, limits, metrics
        self.condition = threading.Condition()
        self.arrived: list[Job] = []
        self.requests = self.pairs = self.steps = 0
        self.closed, self.rate = False, 20.0
        self.thread = threading.Thread(target=self.run, name="worker", daemon=True)
        metrics.gauge("queue_requests", "Requests that wait or are scored", lambda: self.requests)
        metrics.gauge("queue_pairs", "Pairs that wait or are scored", lambda: self.pairs)

    def start(self) -> None:
        self.thread.start()

    @property
    def alive(self) -> bool:
        return self.thread.is_alive()

    def close(self) -> None:
        """Finish what is waiting, and end the thread."""
        with self.condition:
            self.closed = True
            self.condition.notify()
        self.thread.join()

    def submit(self, job: Job) -> None:
        """Put a request into the queue.

        Raises:
            Refused: the queue is full, or the request could never fit.
        """
        most = self.limits.pairs
        with self.condition:
            if job.cost > most:
                raise Refused(
                    413,
                    f"{job.cost} pairs of the query and a view are more than {most}; send fewer or "
                    "shorter documents, or let them be read whole",
                )
            if self.closed:
                raise Refused(503, "the server stops", 1)
            if self.requests >= self.limits.requests or self.pairs + job.cost > most:
                wait = min(60, max(1, math.ceil(self.pairs / self.rate)))
                raise Refused(
                    429,
                    f"too busy: {self.requests} requests with {self.pairs} pairs are waiting; try "
                    f"again in {wait} s",
                    wait,
                )
            self.requests += 1
            self.pairs += job.cost
            self.arrived.append(job)
            self.condition.notify()
        job.future.add_done_callback(lambda _: self.leave(job))

    def leave(self, job: Job) -> None:
        """Give the place of a request that was answered or given up to others."""
        with self.condition:
            self.requests -= 1
            self.pairs -= job.cost

    def run(self) -> None:
        active: list[Job] = []
        while True:
            with self.condition:
                while not (active or self.arrived or self.closed):
                    self.condition.wait()
                active, self.arrived = [*active, *self.arrived], []
                if not active:
                    return
            active = [job for job in active if not job.future.done()]
            if active:
                self.step(active)

    def step(self, active: Sequence[Job]) -> None:
        """Make searches of one kind, or score one batch a thread."""
        self.steps += 1
        first = active[0] if self.steps % 2 else min(active, key=lambda job: job.rest)
        start = time.perf_counter()
        if isinstance(first, Search):
            searches = [job for job in active if isinstance(job, Search) and job.kind == first.kind]
            done = self.search(searches[:TOGETHER])
        else:
            done = self.score([job for job in active if isinstance(job, Rerank)], first)
        if done:
            self.rate += 0.2 * (done / (time.perf_counter() - start) - self.rate)

    def search(self, jobs: Sequence[Search]) -> int:
        """Make searches of one kind; return what they cost in pairs."""
        queries, (top_k, system, own) = [job.query for job in jobs], jobs[0].kind
        candidates = None if not own else [job.candidates for job in jobs]
        try:
            found = self.searcher.search_many(queries, top_k, system, candidates)
        except Exception as error:
            if len(jobs) == 1:
                fail(jobs, error)
                return 0
            return sum(self.search([job]) for job in jobs)  # the others' queries are not to blame
        for job, results in zip(jobs, found, strict=True):
            finish(job, results)
        return sum(job.cost for job in jobs)

    def score(self, jobs: Sequence[Rerank], first: Rerank) -> int:
        """Score one batch a thread, beginning with the longest pair that `first` has left.

        Returns the number of pairs.
        """
        self.prepare([job for job in jobs if job.pairs is None])
        pool = sorted(
            ((job, place) for job in jobs if not job.future.done() for place in job.left),
            key=lambda pair: -len(pair[0].pairs.ids[pair[1]]),
        )
        start = next((at for at, (job, _) in enumerate(pool) if job is first), None)
        if start is None:  # it was given up just now, or could not be prepared
            return 0
        lengths = [len(job.pairs.ids[place]) for job, place in pool]
        while start and len(pool) - start < self.scorer.room(lengths[start - 1]):
            start -= 1  # what is shorter does not fill the batches
        step = pool[start:][: self.scorer.room(lengths[start])]
        try:
            logits = self.scorer.score(
                [job.pairs.ids[place] for job, place in step], self.metrics.batch_pairs.observe
            )
        except Exception as error:
            fail(dict.fromkeys(job for job, _ in step), error)
            return 0
        self.metrics.pairs_scored.inc(len(step))
        for (job, place), logit in zip(step, logits):
            job.logits[place] = logit
        for job in dict.fromkeys(job for job, _ in step):
            job.left = [place for place in job.left if place not in job.logits]
            if not job.left:
                self.answer(job)
        return len(step)

    def prepare(self, jobs: Sequence[Rerank]) -> None:
        """Read the tokens of requests that are new."""
        for job in jobs:
            try:
                job.pairs = self.scorer.pairs(job.query, job.passages, job.whole, job.max_tokens)
            except Exception as error:
                fail([job], error)
            else:
                job.left = list(range(len(job.pairs.ids)))

    def answer(self, job: Rerank) -> None:
        """Give each document the logit of its best view."""
        if not all(map(math.isfinite, job.logits.values())):
            fail([job], Refused(500, "the model gives a score that is no number; try another one"))
            return
        best = [-math.inf] * len(job.passages)
        for document, place in job.pairs.of:
            best[document] = max(best[document], job.logits[place])
        tokens = sum(map(len, job.pairs.ids))
        self.metrics.texts_cut.inc(job.pairs.cut + job.pairs.query_cut)
        finish(job, Scored(best, tokens, job.pairs.cut, job.pairs.query_cut))
