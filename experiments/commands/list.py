"""`supernest list`."""

import json

import click

from experiments.commands.options import json_option, plugin_option

KINDS = ("families", "presets", "samplers", "searchers", "relaxations", "sources", "sharing", "tasks", "proxies")


@click.command(name="list")
@click.argument("kind", required=False, metavar=f"[{'|'.join(KINDS)}]")
@plugin_option
@json_option
def list_(kind: str | None, as_json: bool) -> None:
    """List what an experiment can name."""
    from experiments.configuration.listing import listing
    from search_spaces.errors import UserError, did_you_mean

    if kind is not None and kind not in KINDS:
        raise UserError(f"list: {kind!r} cannot be listed.{did_you_mean(kind, KINDS)}")
    found = {name: listing(name) for name in KINDS if kind in (None, name)}
    if as_json:
        click.echo(json.dumps(found))
        return
    for name, entries in found.items():
        indent = "  " if kind is None else ""
        if not kind:
            click.echo(f"{name}:")
        width = max(map(len, entries), default=0)
        for entry, about in entries.items():
            click.echo(f"{indent}{entry:<{width}}  {about}".rstrip())
