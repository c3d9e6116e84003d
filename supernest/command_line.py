"""The command `supernest`: checks first that no folder of the user's stands in for a package of ours."""

import sys

from supernest.own_packages import check_own_packages


def program() -> int:
    """Runs the command of this process, and returns its exit code."""
    try:
        check_own_packages()
    except ImportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from experiments.cli import program as run

    return run()
