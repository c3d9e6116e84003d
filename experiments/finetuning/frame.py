"""Frame of an exported network: the experiment in which it is trained or judged alone, and its way back to a directory.

The network's weights lie in the supernet's coordinates, all others are zero (`supernet.engine.embedding`).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.configuration.experiment_config import ExperimentConfig
from experiments.configuration.result_sections import RankSection
from experiments.configuration.search_sections import SamplerSection, SearchSection
from experiments.configuration.supernet_section import SupernetSection
from experiments.data import Dataset
from experiments.experiment import Experiment
from experiments.subnets.loading import load_exported
from experiments.subnets.tokenizer import check_tokenizer, tokenizer_of
from search_spaces import Architecture, SearchSpace, UserError
from search_spaces.sealed_json import read_json
from supernet.engine.supernet import Params, Statistics
from supernet.export.export import export_subnet
from supernet.export.subnet import ARCHITECTURE, OLD_PROGRAM, PROGRAM, TOKENIZER, Subnet

_AGAIN = "Export it again from its run."
_PROBE = 64


def alone(config: ExperimentConfig) -> ExperimentConfig:
    """Returns the experiment of one network alone: plain weights, no search, no device, this process."""
    return config.model_copy(
        update={
            "sampler": SamplerSection(), "search": SearchSection(), "rank": RankSection(), "device": None, "ray": None,
            "budgets": type(config).model_fields["budgets"].default,
            "supernet": SupernetSection(),
        }
    )  # fmt: skip


def load_trainable(directory: Path) -> Subnet:
    """Loads an exported network whose weights can be changed.

    Raises:
        UserError: The export is missing or damaged, or the code of its family is not here.
    """
    subnet = load_exported(directory)
    if subnet.module is None:
        raise UserError(f"{directory}: the code of its family is not here, so it cannot be trained. Give --plugin.")
    return subnet


def data_for(directory: Path, subnet: Subnet, data: Dataset, where: str) -> Dataset:
    """Returns data as an exported network takes them.

    Args:
        directory: The network, for messages.
        subnet: The network.
        data: The data, as they were loaded.
        where: The experiment's file, for messages.

    Raises:
        UserError: The data are of another tokenizer, or the network does not know a class or a feature of them.
    """
    check_tokenizer(str(directory), tokenizer_of(subnet, directory), data.tokenizer)
    return data.for_network(f"{where}: data", subnet)


def architecture_of(directory: Path, space: SearchSpace, where: str) -> Architecture:
    """Returns the architecture of an exported network, which must be of a space.

    Args:
        directory: The network.
        space: The space.
        where: The experiment's file, for messages.

    Raises:
        UserError: The network was exported from another space.
    """
    exported = read_json(directory / ARCHITECTURE, _AGAIN)
    if exported.get("space_fingerprint") != space.fingerprint:
        raise UserError(
            f"{where}: space: is not the one that {directory} was cut from. Give the experiment of its run: --data "
            "RUN/config.yaml"
        )
    return space.architecture(np.array(exported["genes"], np.int32))


def export_again(
    experiment: Experiment,
    params: Params,
    architecture: Architecture,
    statistics: Statistics | None,
    source: Path,
    subnet: Subnet,
    out: Path,
    measure: Callable[[Subnet], Mapping[str, Any]],
) -> None:
    """Exports a network with other weights; all else that users meet stays that of the network.

    Args:
        experiment: The experiment of the network alone.
        params: Weights in the supernet's coordinates.
        architecture: Architecture of the network.
        statistics: Batch statistics, for families that have them.
        source: Directory of the network that it was.
        subnet: That network.
        out: Directory of the export.
        measure: Measure as in `export_subnet`, which lists the errors too.
    """
    validation = experiment.data.validation
    examples, _ = validation.read(np.arange(min(_PROBE, len(validation))))
    own = source / TOKENIZER
    export_subnet(
        experiment.net, params, architecture, out,
        statistics=statistics,
        preprocessing=subnet.preprocessing,
        input_shape=subnet.config["input"]["shape"],
        labels=subnet.config["labels"],
        probe=examples,
        measure=measure,
        stablehlo=any((source / name).is_file() for name in (PROGRAM, OLD_PROGRAM)),
        tokenizer=None if "tokenizer" not in subnet.config else sorted(own.iterdir()) if own.is_dir() else [],
        bos=subnet.config.get("bos", False),
        outputs=subnet.outputs,
    )  # fmt: skip
