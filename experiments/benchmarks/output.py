"""How a benchmark prints its figures."""

import json
from typing import Any


def show(figures: dict[str, Any], as_json: bool) -> None:
    """One JSON object, or a line a figure."""
    if as_json:
        print(json.dumps(figures, indent=1))
        return
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name.ljust(width)}  {value:.4g}" if isinstance(value, float) else f"{name.ljust(width)}  {value}")
