"""The data that a run began with, by their fingerprint: data may move, but not change."""

import json
from pathlib import Path

from experiments.configuration.experiment_config import ExperimentConfig
from experiments.data import Dataset
from search_spaces import UserError
from search_spaces.sealed_json import read_json, read_sealed, sealed
from supernet.storage.manifest import write_text_atomically

_FILE = "data.json"


def record_data(run: Path, data: Dataset) -> None:
    """Writes the fingerprint of a run's data down, once."""
    if not (run / _FILE).exists():
        write_text_atomically(run / _FILE, json.dumps(sealed({"fingerprint": data.fingerprint})) + "\n")


def check_data(run: Path, config: ExperimentConfig) -> None:
    """Checks that the data of an experiment are those that a run began with.

    Raises:
        UserError: They are others, or cannot be read.
    """
    known = _fingerprint(run)
    if known is None:
        raise UserError(
            f"{run}: does not say which data it began with, as it is of an earlier build and has exported nothing. "
            "Put the data back where they were."
        )
    if config.data.load(config.seed).fingerprint != known:
        raise UserError(f"data: are not those that {run} began with. Name where the same data lie now.")


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
