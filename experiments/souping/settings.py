"""Settings of a soup: what it is made of, how, and the hash of all that decides its outcome."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from experiments.configuration.experiment_config import ExperimentConfig
from experiments.exporting.lineage import TrainedOn
from experiments.finetuning.settings import FINETUNED
from experiments.souping.choice import Method, check_method, check_tolerance
from experiments.souping.report import SOUP
from experiments.storage.run_files import CONFIG, is_run
from experiments.user_input.yaml_files import read_yaml
from search_spaces import UserError
from search_spaces.sealed_json import read_json
from supernet.export.subnet import REPORT

_LONGEST_CHAIN = 20  # finetunings of finetunings


@dataclass(frozen=True)
class Souping:
    """Settings of a soup of exported networks.

    Attributes:
        inputs: Directories of the networks, at least one.
        out: Directory of the soup.
        config: Experiment whose validation split judges, and whose training examples calibrate batch statistics.
        where: Its file, for messages.
        method: Whether all are taken, or those that do no harm.
        tolerance: By how much the objective of a shape may exceed that of its best ingredient, for networks of several
            shapes; 0 when None.

    Raises:
        UserError: The method is not known, or the tolerance is no number of 0 to 1000.
    """

    inputs: tuple[Path, ...]
    out: Path
    config: ExperimentConfig
    where: str
    method: Method = "greedy"
    tolerance: float | None = None

    def __post_init__(self) -> None:
        check_method(self.method)
        check_tolerance(self.tolerance)

    def identity(self, contents: Sequence[str], data: TrainedOn) -> str:
        """Returns the hash of all that decides the outcome.

        Args:
            contents: Hash of each ingredient.
            data: The data, as they were loaded.
        """
        tolerance = float(self.tolerance) if self.tolerance else None  # none is 0
        decides = {
            "ingredients": list(contents), "data": asdict(data), "method": self.method, "tolerance": tolerance,
            "evaluation": self.config.evaluation.scores, "seed": self.config.seed,
        }  # fmt: skip
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def check_out(out: Path, inputs: Sequence[Path]) -> None:
    """Refuses an output that is one of the inputs, or lies in one, or holds one.

    Raises:
        UserError: The output is or contains an input, or lies in one.
    """
    place = out.resolve()
    for given in inputs:
        source = given.resolve()
        if place == source or source in place.parents or place in source.parents:
            raise UserError(f"--out: {out} is {given}, lies in it or holds it. Choose another directory.")


def experiment_of(inputs: Sequence[Path]) -> Path:
    """Returns the experiment file of the run that a network lies in, or that it was finetuned from.

    A run that only a report names may be anybody's: the code of its plug-ins is not run unless its file is given.

    Args:
        inputs: Directories of networks; the first that tells it is believed.

    Raises:
        UserError: A directory is missing, none tells it, or a report names a run with plug-ins.
    """
    for given in inputs:
        if not given.is_dir():
            raise UserError(f"{given}: no such directory. Give directories of exported networks, or of runs.")
    for given in inputs:
        place = given.absolute()
        for number in range(_LONGEST_CHAIN):
            if is_run(run := place.parent.parent):
                if number and read_yaml(run / CONFIG).get("plugins"):
                    raise UserError(
                        f"--data: missing, as {given} lies in no run, and the one that its report names has plug-ins, "
                        f"whose code would run. If you trust them: --data {run / CONFIG}"
                    )
                return run / CONFIG
            if (source := _source(place)) is None:
                break
            place = source
    raise UserError(
        f"--data: missing, as {inputs[0]} neither lies in a run nor was finetuned from a network in one. Give the "
        "experiment file that it was trained with."
    )


def _source(directory: Path) -> Path | None:
    """Returns the network that another one was finetuned from, or one that it is the mean of, if its report tells."""
    try:
        report = read_json(directory / REPORT, "")
        source = report[FINETUNED]["source"] if FINETUNED in report else min(report[SOUP]["alone"])
    except (OSError, KeyError, TypeError, ValueError):  # what is damaged is told when the network is read
        return None
    return Path(source) if isinstance(source, str) else None
