"""A federation as text to read: what each size reaches, how often clients were asked, and the bytes that were sent."""

from experiments.records import FederationFigures


def table(figures: FederationFigures) -> str:
    """Returns accuracy by size, then the means over clients and the bytes, in lines."""
    last = figures.last
    rows = [
        ("network", "val. accuracy", "directory"),
        ("server", f"{last.server:.1%}", figures.subnets["server"]),
        *((name, f"{accuracy:.1%}", figures.subnets[name]) for name, accuracy in last.sizes.items()),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(
        [
            *lines,
            f"mean over {len(figures.asked)} clients after {figures.rounds} rounds: {last.mean:.1%}, in their own "
            f"shares of the classes {last.mean_own:.1%}",
            f"sent to clients: {figures.bytes_down:,} bytes; sent back: {figures.bytes_up:,} bytes; asked: "
            f"{', '.join(map(str, figures.asked))} times",
        ]
    )
