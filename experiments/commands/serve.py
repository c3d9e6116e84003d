"""`supernest serve`."""

from pathlib import Path
from typing import Any

import click

from experiments.commands.options import plugin_option
from experiments.user_input.paths import UserPath

_MOST_PIXELS = 178_956_970  # more are never decoded by Pillow


@click.command()
@click.argument("subnet", type=UserPath())
@click.option(
    "--host", default="127.0.0.1", show_default=True,
    help="Address to listen on. 127.0.0.1 accepts requests from this machine only, 0.0.0.0 from other machines too.",
)  # fmt: skip
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--batch-size", type=click.IntRange(1, 4096), default=16, show_default=True,
    help="Largest number of examples in a request, and in a batch.",
)  # fmt: skip
@click.option(
    "--top", type=click.IntRange(min=1), default=5, show_default=True, help="Number of likeliest classes in an answer."
)
@click.option(
    "--max-bytes", type=click.IntRange(1, 2**31), default=10 * 2**20, show_default=True,
    help="Largest request body in bytes.",
)  # fmt: skip
@click.option(
    "--max-pixels", type=click.IntRange(1, _MOST_PIXELS), default=25_000_000, show_default=True,
    help="Largest picture in pixels, width times height.",
)  # fmt: skip
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), default=100.0, show_default=True,
    help="Most requests a second from one client address, averaged over ten seconds.",
)  # fmt: skip
@plugin_option
def serve(subnet: Path, **settings: Any) -> None:
    """Serve an exported subnet over HTTP, until Ctrl-C; needs the extra serve.

    POST /predict takes a picture (image/*, or files of a form), or JSON: {"examples": [...]}. GET /health says that the
    network is ready and what it takes; GET /metrics has figures for Prometheus.
    """
    from experiments.serving.server import check_serve_installed
    from experiments.serving.server import serve as run
    from experiments.serving.settings import Settings
    from experiments.subnets.loading import load_exported

    check_serve_installed()
    run(
        load_exported(subnet, plugins=False),
        Settings(**settings),
        lambda url: click.echo(f"{subnet}: serving on {url}"),
    )
