"""The data that a run began with, by their fingerprint: data may move, but not change."""

import json
from pathlib import Path

from experiments.data import Dataset
from search_spaces import UserError
from search_spaces.sealed_json import read_json, read_sealed, sealed
from supernet.storage.manifest import write_text_atomically

_FILE = "data.json"


def record_data(run: Path, data: Dataset) -> None:
    """Writes the fingerprint of a run's data down, once.

    Raises:
        UserError: The data are others than those that the run began with.
    """
    check_data(run, data)
    if not (run / _FILE).exists():
        write_text_atomically(run / _FILE, json.dumps(sealed({"fingerprint": data.fingerprint})) + "\n")


def check_data(run: Path, data: Dataset, moved: bool = False) -> None:
    """Checks that data are those that a run began with.

    Args:
        run: The run directory.
        data: The data.
        moved: Whether they lie elsewhere; if not, those of a run that does not say which it began with are believed.

    Raises:
        UserError: The data are others, or the run has no record of them.
    """
    known = _fingerprint(run)
    if known is None and moved:
        raise UserError(
            f"{run}: does not say which data it began with, as it is of an earlier build and has exported nothing. "
            "Put the data back where they were."
        )
    if known not in (None, data.fingerprint):
        raise UserError(
            f"data: are not those that {run} began with. Put those back, name where they lie now, or choose another "
            "directory with --out."
        )


def _fingerprint(run: Path) -> str | None:
    try:
        return str(read_sealed(run / _FILE, "Delete it.")["fingerprint"])
    except FileNotFoundError:
        pass
    for report in sorted((run / "subnets").glob("*/report.json")):
        found = read_json(report, "Export it again.").get("data_fingerprint")
        if found is not None:
            return str(found)
    return None
