"""Files of a run directory that every command reads first: `run.json`, the configuration that it seals, the summary.

Light to import: an answer from a finished run needs no JAX.
"""

import hashlib
import json
from pathlib import Path

from experiments.records.plain import JsonObject
from experiments.records.summary import Summary
from experiments.storage.run_identity import run_identity
from experiments.user_input.yaml_files import read_yaml
from search_spaces.errors import UserError
from search_spaces.sealed_json import is_intact, read_json, read_sealed, sealed
from supernet.storage.manifest import write_text_atomically

CONFIG, RUN, SUMMARY = "config.yaml", "run.json", "summary.json"
_REMEDY = "Restore the file, or choose a new directory with --out."
_SUMMARY_REMEDY = "Delete it; `supernest run` writes it again, and does nothing twice."
# What stages write, all of them after the first summary.
_RESULTS = ("incubation", "checkpoints", "gradient", "federation", "search", "subnets", "rank", "proxies")


def is_run(directory: Path) -> bool:
    """Returns whether a directory contains a run: the two files of its start."""
    return (directory / CONFIG).is_file() and (directory / RUN).is_file()


def read_run(directory: Path) -> JsonObject:
    """Returns what `run.json` says: versions that the run began with, and the hash of its configuration.

    Raises:
        UserError: The file is missing or damaged.
    """
    path = directory / RUN
    try:
        run = read_json(path, _REMEDY)
    except FileNotFoundError:
        raise UserError(f"{path}: missing, so {directory} is no run. {_REMEDY}") from None
    if not is_intact(run) or not isinstance(run.get("versions"), dict) or not isinstance(run.get("config_sha256"), str):
        raise UserError(f"{path}: is damaged. {_REMEDY}")
    return run


def check_config(directory: Path) -> None:
    """Checks that the configuration of a run is still that which it began with.

    Raises:
        UserError: The configuration was changed, or `run.json` is damaged.
    """
    content, run = (directory / CONFIG).read_bytes(), read_run(directory)
    # Of a run that was killed while its settings were changed, those before are right, too.
    if hashlib.sha256(content).hexdigest() not in (run["config_sha256"], run.get("config_before")):
        raise UserError(
            f"{directory / CONFIG}: was changed after the run began (its hash is not that in {RUN}). {_REMEDY}"
        )


def read_run_config(directory: Path) -> JsonObject:
    """Returns the configuration of a run, as in YAML.

    Raises:
        UserError: There is none, or it was changed after the run began.
    """
    if (directory / CONFIG).is_file():
        check_config(directory)
    return read_yaml(directory / CONFIG)


def summary_json(directory: Path) -> JsonObject:
    """Returns the content of `summary.json`, with the hash that guards it; empty before the first stage has ended.

    Raises:
        UserError: The file was changed, or is of another run.
    """
    try:
        return read_sealed(directory / SUMMARY, _SUMMARY_REMEDY, _owner(read_run(directory)))
    except FileNotFoundError:
        return {}


def lost_summary(directory: Path) -> bool:
    """Returns whether a run has results of a stage, but not the summary that it wrote before them."""
    return not (directory / SUMMARY).exists() and any((directory / name).exists() for name in _RESULTS)


def read_summary(directory: Path) -> Summary:
    """Returns the figures of the stages that were run; none before the first has ended.

    Raises:
        UserError: The file is lost, was changed, is of another run, or was written by another version.
    """
    if lost_summary(directory):
        raise UserError(
            f"{directory / SUMMARY}: missing, though the run has results. Restore it; `supernest run` writes it again, "
            "and does nothing twice."
        )
    try:
        return Summary.from_json(summary_json(directory))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{directory / SUMMARY}: written by another version of supernest ({type(error).__name__}: {error}). "
            f"{_SUMMARY_REMEDY}"
        ) from None


def write_summary(directory: Path, summary: Summary) -> Summary:
    """Writes the figures of the stages with a hash that guards them, and returns them.

    Raises:
        UserError: The disk refuses.
    """
    content = sealed(summary.as_json(), _owner(read_run(directory)))
    write_text_atomically(directory / SUMMARY, json.dumps(content, indent=1, sort_keys=True) + "\n")
    return summary


def _owner(run: JsonObject) -> str:
    """Returns the hash that the summary is sealed with: that of the configuration which the run began with."""
    return str(run.get("began_as", run["config_sha256"]))


def identity_of(directory: Path) -> str:
    """Returns the identity of a run: the hash of the deciding settings that it began with.

    Raises:
        UserError: There is no run, or its configuration was changed by hand.
    """
    config = read_run_config(directory)
    return str(read_run(directory).get("identity") or run_identity(config))
