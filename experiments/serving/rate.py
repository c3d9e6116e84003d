"""Rate: how many requests each client may send, as a bucket of tokens that fills steadily."""

import time
from collections import OrderedDict
from collections.abc import Callable

_SECONDS, _CLIENTS = 10, 10_000


class Rate:
    """Counts requests of clients; the ones that were seen last are remembered.

    Args:
        rate: Requests a second that a client may send on average over ten seconds.
        clock: Seconds.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._most = max(rate * _SECONDS, 1.0)
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> float:
        """Counts a request, and returns 0; or the seconds after which the client may send one."""
        now = self._clock()
        left, since = self._left.pop(client, (self._most, now))
        left = min(left + (now - since) * self._rate, self._most)
        allowed = left >= 1
        self._left[client] = (left - allowed, now)
        if len(self._left) > _CLIENTS:
            self._left.popitem(last=False)
        return 0.0 if allowed else (1 - left) / self._rate
