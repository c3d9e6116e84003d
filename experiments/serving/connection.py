"""Connections of clients, which are closed where no request comes; uvicorn alone waits for a first one for ever."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


def connection(timeout: float) -> type[H11Protocol]:
    """Returns uvicorn's protocol, which closes connections that send no whole head of a request for a while.

    Args:
        timeout: Seconds; a connection is closed after one to two of them.
    """

    class Connection(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._last = self.cycle
            self._timer = self.loop.call_later(timeout, self._check)

        def connection_lost(self, exc: Exception | None) -> None:
            self._timer.cancel()
            super().connection_lost(exc)

        def _check(self) -> None:
            """Closes the connection if no request is in progress, and none began since the last check."""
            if self.cycle is self._last and (self.cycle is None or self.cycle.response_complete):
                self.timeout_keep_alive_handler()
            else:
                self._last = self.cycle
                self._timer = self.loop.call_later(timeout, self._check)

    return Connection
