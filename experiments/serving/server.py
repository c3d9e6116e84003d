"""The server: an application behind uvicorn, on a socket of its own, until SIGINT or SIGTERM."""

import logging
import socket
import warnings
from collections.abc import Callable
from types import FrameType

from experiments.serving.settings import Settings
from experiments.user_input.extras import check_installed
from search_spaces import UserError
from supernet.export.subnet import Subnet

_NEEDED = ("starlette", "uvicorn", "python_multipart", "prometheus_client")
_LAST = 10  # seconds that requests in progress have after a signal


def check_serve_installed() -> None:
    """Refuses to go on without the extra.

    Raises:
        UserError: A package is missing.
    """
    check_installed("serve", "serve", _NEEDED)


def serve(subnet: Subnet, settings: Settings, ready: Callable[[str], None]) -> None:
    """Serves a network until SIGINT or SIGTERM; requests in progress are then answered.

    Args:
        subnet: The network.
        settings: Settings of the address and of limits.
        ready: Called with the URL once requests are taken.

    Raises:
        UserError: The address cannot be listened on, the network writes text, or the extra is missing.
    """
    check_serve_installed()
    import uvicorn
    from PIL import Image

    from experiments.serving.application import Application
    from experiments.serving.connection import connection

    class Server(uvicorn.Server):
        def handle_exit(
            self, sig: int, frame: FrameType | None
        ) -> None:  # uvicorn's raises the signal again at the end
            self.force_exit = self.should_exit
            self.should_exit = True

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready(url)

    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `max_pixels` decides
    with _listening(settings) as listening:
        host, port = listening.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        application = Application(subnet, settings)
        config = uvicorn.Config(
            application.asgi(), http=connection(settings.timeout), ws="none", log_level=logging.CRITICAL,
            access_log=False, timeout_graceful_shutdown=_LAST, limit_concurrency=settings.max_waiting * 4, backlog=2048,
        )  # fmt: skip
        Server(config).run([listening])


def _listening(settings: Settings) -> socket.socket:
    where = f"--host {settings.host} --port {settings.port}"
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except (OSError, UnicodeError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{where}: cannot be listened on ({reason}). Choose another port or address.") from None
