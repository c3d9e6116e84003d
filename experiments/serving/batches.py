"""Batches of concurrent requests: while the network computes one batch, the requests that arrive become the next."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from experiments.serving.refusals import Refusal


class Batches:
    """Computes examples of many requests together; a request alone does not wait.

    Args:
        compute: Returns the network's outputs on examples, at most `most`; it runs in a thread.
        most: Largest number of examples in a batch, and of a request.
        computed: Called with the size of each batch.
    """

    def __init__(self, compute: Callable[[np.ndarray], np.ndarray], most: int, computed: Callable[[int], None]) -> None:
        self._compute, self._most, self._computed = compute, most, computed
        self._waiting: deque[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._works: asyncio.Task[None] | None = None

    async def __call__(self, examples: np.ndarray) -> np.ndarray:
        """Returns the network's outputs on examples, once their batch is computed.

        Raises:
            Refusal: There are more than `most`.
        """
        if len(examples) > self._most:
            raise Refusal(413, f"{len(examples)} examples are more than {self._most}. Send several requests.")
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
