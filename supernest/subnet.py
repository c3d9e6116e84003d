"""Exported networks in Python: loaded with their plug-ins, and used on arrays and on files."""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from supernet.export import subnet


class Subnet(subnet.Subnet):
    """A standalone network: `load_subnet` makes it from an exported directory."""

    def predict_files(
        self, files: Iterable[str | os.PathLike[str]], *, top: int = 5, batch_size: int = 32
    ) -> list[Mapping[str, Any]]:
        """Predicts files, which are read as those of training were; see `supernest predict --help`.

        Args:
            files: Pictures, or tables and arrays, and folders of them.
            top: Largest number of likeliest classes that are named, at least 1.
            batch_size: Number of examples in a batch, at least 1.

        Returns:
            For each example `file`, `row` where a file holds several, and `top`, a list of `label` and `probability`,
            or `values` by name.

        Raises:
            UserError: A file is missing, cannot be read or holds something else; or the network writes text.
        """
        from experiments.prediction.predict import predict_files

        return [prediction.as_json() for prediction in predict_files(self, files, top, batch_size)]


def load_subnet(directory: str | os.PathLike[str], *, plugins: bool = False, size: int | str | None = None) -> Subnet:
    """Loads an exported subnet, after checking what is read against the hashes beside it.

    Args:
        directory: `RUN/subnets/NAME` or `RUN/nested/NAME`, or a copy of it.
        plugins: Import the plug-ins that the run around it names, which runs their code. Without them, the network of a
            plug-in that is not imported yet runs as its stored program, `forward.jax_export`, and has no `module`.
        size: Most bytes of weights to read of a nested export, such as `"1.5MB"`; all when None.

    Raises:
        UserError: The directory is missing, incomplete or altered, or its family is not known here.
    """
    from experiments.subnets.loading import load_exported

    loaded = load_exported(Path(directory), plugins, size)
    return Subnet(**{field.name: getattr(loaded, field.name) for field in dataclasses.fields(loaded)})
