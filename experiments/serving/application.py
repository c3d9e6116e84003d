"""The ASGI application: `/predict`, `/health` and `/metrics` of one exported network."""

import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from experiments.prediction.reader import READERS
from experiments.serving.batches import Batches
from experiments.serving.bodies import examples_of
from experiments.serving.metrics import Metrics
from experiments.serving.rate import Rate
from experiments.serving.refusals import Refusal
from experiments.serving.settings import Settings
from supernet.export.subnet import Subnet, filled_batch
from supernet.tasks.answers import ExampleAnswer


class Application:
    """Answers requests with a network, which is compiled for every batch size beforehand.

    Args:
        subnet: The network.
        settings: Limits.

    Raises:
        UserError: The network writes text.
    """

    def __init__(self, subnet: Subnet, settings: Settings) -> None:
        self._subnet, self._settings = subnet, settings
        self._reader = READERS[subnet.config["task"]](subnet)
        self._labels = tuple(subnet.config["labels"])
        self._metrics, self._rate = Metrics(), Rate(settings.rate)
        self._in_progress = 0
        self._sizes = sorted({settings.batch_size, *(4**i for i in range(10) if 4**i < settings.batch_size)})
        dtype = np.dtype(subnet.config["input"]["dtype"])
        for size in self._sizes:
            self._compute(np.zeros((size, *subnet.config["input"]["shape"]), dtype))

    def asgi(self) -> Starlette:
        """Returns the application for a server."""
        self._batches = Batches(self._compute, self._settings.batch_size, self._metrics.examples.observe)

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            yield
            self._batches.close()

        return Starlette(
            routes=[
                Route("/predict", self._predict, methods=["POST"]),
                Route("/health", self._health, methods=["GET"]),
                Route("/metrics", self._figures, methods=["GET"]),
            ],
            exception_handlers={HTTPException: self._refuse_path},
            lifespan=lifespan,
        )

    def _compute(self, examples: np.ndarray) -> np.ndarray:
        size = next(size for size in self._sizes if size >= len(examples))
        return self._subnet.predict(filled_batch(examples, size), size)[: len(examples)]

    async def _predict(self, request: Request) -> Response:
        start = time.perf_counter()
        with self._metrics.open.track_inprogress():
            try:
                response = JSONResponse({"predictions": [answer.as_json() for answer in await self._answers(request)]})
            except Refusal as refusal:
                # What is left of a body that was not read is not taken for the next request.
                headers = {**refusal.headers, "Connection": "close"}
                response = JSONResponse({"error": str(refusal)}, refusal.status, headers)
            except Exception:
                traceback.print_exc()
                text = "the server failed on this request; its log says why."
                response = JSONResponse({"error": text}, 500, {"Connection": "close"})
        self._metrics.requests.labels("/predict", response.status_code).inc()
        self._metrics.seconds.observe(time.perf_counter() - start)
        return response

    async def _answers(self, request: Request) -> list[ExampleAnswer]:
        wait = self._rate.wait(request.client.host if request.client else "")
        if wait:
            text = f"more than {self._settings.rate:g} requests a second. Wait, or send several examples in one."
            raise Refusal(429, text, {"Retry-After": str(int(wait) + 1)})
        if self._in_progress >= self._settings.max_waiting:  # before a body is read, which takes memory
            text = f"{self._settings.max_waiting} requests are in progress already. Try again later."
            raise Refusal(503, text, {"Retry-After": "1"})
        self._in_progress += 1
        try:
            examples, top = await examples_of(request, self._reader, self._settings)
            outputs = await self._batches(examples)
        finally:
            self._in_progress -= 1
        if not np.isfinite(outputs).all():
            raise Refusal(422, "the network's outputs are not finite on these examples. Send other values.")
        return self._subnet.outputs.answers(outputs, self._labels, top)

    async def _health(self, request: Request) -> Response:
        self._metrics.requests.labels("/health", 200).inc()
        config = self._subnet.config
        return JSONResponse(
            {
                "status": "ok",
                "task": config["task"],
                "family": config["family"],
                "input": config["input"],
                "labels": list(self._labels),
            }
        )

    async def _figures(self, request: Request) -> Response:
        self._metrics.requests.labels("/metrics", 200).inc()
        return Response(self._metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def _refuse_path(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        self._metrics.requests.labels("other", error.status_code).inc()
        text = f"{error.detail}. POST /predict, GET /health or GET /metrics."
        return JSONResponse({"error": text}, error.status_code, error.headers)
