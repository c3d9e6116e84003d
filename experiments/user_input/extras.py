"""Extras: packages that some commands need beside those that every installation has."""

import importlib.util
from collections.abc import Sequence

from search_spaces import UserError


def check_installed(where: str, extra: str, packages: Sequence[str]) -> None:
    """Refuses to go on without an extra.

    Args:
        where: The command or option that needs it.
        extra: Its name.
        packages: Names under which its packages are imported.

    Raises:
        UserError: A package is missing.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"{where}: {' and '.join(missing)} cannot be imported. Install the extra: pip install 'supernest[{extra}]'"
        )
