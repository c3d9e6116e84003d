"""Batches of concurrent requests: while the network computes one batch, the requests that arrive become the next."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from experiments.serving.refusals import Refusal

_WAIT = {"Retry-After": "1"}


class Batches:
    """Computes examples of many requests together; a request alone does not wait.

    Args:
        compute: What the network says of examples, at most `most`; it runs in a thread.
        most: Largest number of examples in a batch, and of a request.
        max_waiting: Largest number of requests that wait; more are refused.
        computed: Told the size of each batch.
    """

    def __init__(
        self, compute: Callable[[np.ndarray], np.ndarray], most: int, max_waiting: int, computed: Callable[[int], None]
    ) -> None:
        self._compute, self._most, self._max_waiting, self._computed = compute, most, max_waiting, computed
        self._waiting: deque[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._works: asyncio.Task[None] | None = None

    async def __call__(self, examples: np.ndarray) -> np.ndarray:
        """Returns what the network says of examples, once their batch is computed.

        Raises:
            Refusal: Too many of them, or too many requests wait.
        """
        if len(examples) > self._most:
            raise Refusal(413, f"{len(examples)} examples are more than {self._most}. Send several requests.")
        if len(self._waiting) >= self._max_waiting:
            raise Refusal(503, f"{self._max_waiting} requests wait already. Try again later.", _WAIT)
        answer: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._waiting.append((examples, answer))
        if self._works is None or self._works.done():
            self._works = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            taken, count = [], 0
            while self._waiting and count + len(self._waiting[0][0]) <= self._most:
                examples, answer = self._waiting.popleft()
                if not answer.done():  # the client has gone
                    taken.append((examples, answer))
                    count += len(examples)
            if not taken:
                continue
            batch = np.concatenate([examples for examples, _ in taken])
            try:
                found = await loop.run_in_executor(self._thread, self._compute, batch)
            except Exception as error:
                for _, answer in taken:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            self._computed(count)
            start = 0
            for examples, answer in taken:
                if not answer.done():
                    answer.set_result(found[start : start + len(examples)])
                start += len(examples)

    def close(self) -> None:
        """Lets the batch in progress end."""
        self._thread.shutdown(wait=True, cancel_futures=True)
