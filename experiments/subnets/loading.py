"""Exported subnets as commands load them: as data alone, or with the plug-ins of the run that they lie in."""

import sys
from pathlib import Path

from experiments.configuration.plugins import changed_plugins, import_plugins_of_run
from supernet.export.subnet import Subnet, load_subnet


def load_exported(directory: Path, plugins: bool = True, size: int | str | None = None) -> Subnet:
    """Loads an exported subnet.

    Args:
        directory: `RUN/subnets/NAME`, or a copy of it.
        plugins: Import the plug-ins of the run that it lies in, which runs their code. Without them a plug-in's family
            that was not imported otherwise runs as its stored program.
        size: Most bytes of weights to read of a nested export; all when None.

    Raises:
        UserError: The directory is missing, incomplete or altered, or its family is not known here.
    """
    if plugins:
        run = directory.absolute().parent.parent
        import_plugins_of_run(run)
        for note in changed_plugins(run):
            print(f"note: {note}", file=sys.stderr)
    return load_subnet(directory, size)
