"""What a server counts, as text for Prometheus."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

SECONDS = (0.01, 0.03, 0.1, 0.3, 0.5, 1, 2, 5, 10, 30, 60)
PAIRS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters of one server. prometheus_client locks each, so any thread may count."""

    def __init__(self):
        self.registry = CollectorRegistry()
        given = {"registry": self.registry}
        self.requests = Counter(
            "tunerank_requests", "Answers; 499: given up by the client", ["path", "status"], **given
        )
        self.seconds = Histogram(
            "tunerank_request_seconds", "From the headers to the answer", ["path"],
            buckets=SECONDS, **given,
        )  # fmt: skip
        self.batch_pairs = Histogram(
            "tunerank_batch_pairs", "Pairs of one batch", buckets=PAIRS, **given
        )
        self.pairs_scored = Counter("tunerank_pairs_scored", "Pairs that the model read", **given)
        self.texts_cut = Counter("tunerank_texts_cut", "Texts longer than the model reads", **given)
        ProcessCollector(registry=self.registry)

    def gauge(self, name: str, what: str, value: Callable[[], float]) -> None:
        """Add a value that is read whenever the metrics are."""
        Gauge(f"tunerank_{name}", what, registry=self.registry).set_function(value)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self.requests.labels(path, status).inc()
        self.seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """Return all values in Prometheus' text format."""
        return generate_latest(self.registry)
