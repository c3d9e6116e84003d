"""Exported subnets as commands load them: with the plug-ins of the run that they lie in."""

import sys
from pathlib import Path

from experiments.configuration.plugins import changed_plugins, import_plugins_of_run
from supernet.export.subnet import Subnet, load_subnet


def load_exported(directory: Path) -> Subnet:
    """Loads an exported subnet; where it lies in its run, the run's plug-ins are imported first.

    Args:
        directory: `RUN/subnets/NAME`, or a copy of it.

    Raises:
        UserError: The directory is missing, incomplete or altered, or its family is not known here.
    """
    run = directory.absolute().parent.parent
    import_plugins_of_run(run)
    for note in changed_plugins(run):
        print(f"note: {note}", file=sys.stderr)
    return load_subnet(directory)
