"""Metrics of a server, as Prometheus reads them."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "supernest_requests", "Requests, by path and HTTP status.", ("path", "status"), registry=registry
        )
        self.seconds = Histogram(
            "supernest_request_seconds", "Seconds from the head of a request of /predict to its response.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.examples = Histogram(
            "supernest_batch_examples", "Examples that were computed together.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256), registry=registry,
        )  # fmt: skip
        self.open = Gauge("supernest_open_requests", "Requests of /predict in progress.", registry=registry)

    def text(self) -> bytes:
        """Returns all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
