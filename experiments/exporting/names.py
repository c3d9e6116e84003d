"""Names of the exported subnets of a run."""

from collections.abc import Sequence
from pathlib import Path

from search_spaces import UserError, did_you_mean


def exported_names(run: Path, names: Sequence[str]) -> Sequence[str]:
    """Returns the names of subnets that a command works on.

    Args:
        run: The run directory.
        names: Names that the user gave; all of the run when empty.

    Raises:
        UserError: The run has no exported subnets, or none of a name.
    """
    known = sorted(path.name for path in (run / "subnets").glob("*") if path.is_dir() and path.name[0] != ".")
    if not known:
        raise UserError(f"{run}: has no exported subnets. Export them first: supernest export {run}")
    for name in names:
        if name not in known:
            raise UserError(f"--subnet: {name!r} is none of this run.{did_you_mean(name, known)}")
    return names or known
