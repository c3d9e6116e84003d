"""Checks that names of Supernest's other packages, which are common, do not mean folders of the user's."""

import importlib.util
from pathlib import Path

OWN = ("experiments", "samplers", "search", "search_spaces", "supernet")


def check_own_packages() -> None:
    """Checks that names such as `search` mean Supernest's packages.

    Raises:
        ImportError: Something else of that name stands before one of them on Python's path.
    """
    home = Path(__file__).resolve().parent.parent
    for name in OWN:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None and home not in Path(spec.origin).resolve().parents:
            found = Path(spec.origin)
            found = found.parent if found.name == "__init__.py" else found
            raise ImportError(
                f"{found}: has the name of a package of Supernest and stands before it on Python's path, so that it is "
                f"imported instead. Rename it, or start Python from another directory (sys.path begins with its own)."
            )
