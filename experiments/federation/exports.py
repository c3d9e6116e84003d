"""Export of a federation's networks: the server's, and the one that clients of each size would be sent next."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from experiments.configuration.federation_section import SERVER
from experiments.experiment import Experiment
from experiments.exporting.stage import reached
from experiments.federation.networks import Changed
from experiments.federation.server import Server, ServerState
from experiments.records.plain import JsonObject
from experiments.storage.earlier import set_part_aside
from search_spaces import Architecture, UserError
from search_spaces.sealed_json import read_json
from supernet.engine.embedding import embed
from supernet.engine.supernet import Params
from supernet.export.export import export_subnet
from supernet.export.subnet import PROGRAM, REPORT, Subnet
from supernet.federation.shapes import nested
from supernet.storage.manifest import verify_manifest

_FEDERATION = "federation"
"""Key of the report that says which run it is of."""
_PROBE = 64


def export_networks(server: Server, state: ServerState, experiment: Experiment, home: Path) -> dict[str, str]:
    """Exports all networks; those that are there, whole and as the section `export` says are kept.

    Args:
        server: The server.
        state: After the last round.
        experiment: The experiment.
        home: Directory for them, below the run directory.

    Returns:
        Name of each to its directory, relative to the run directory.

    Raises:
        UserError: An export that is there was altered, or is of another run; or outputs are not finite.
    """
    net, found, run = experiment.net, {}, home.parent.parent
    whole = {path: jnp.asarray(weight) for path, weight in state.weights.items()}
    networks: list[tuple[str, Architecture, Params]] = [(SERVER, experiment.space.largest, nested(whole))]
    for number, size in enumerate(server.federation.sizes):
        own: Changed = server.compress(state, number)
        networks.append((size.name, size.architecture, embed(net, size.network.plain(own), size.architecture)))
    for name, architecture, params in networks:
        directory, part = home / name, f"{home.parent.name}/{home.name}/{name}"
        there = _is_there(directory, name, experiment.config.identity)
        if there and (directory / PROGRAM).is_file() != experiment.config.export.stablehlo:
            set_part_aside(run, part)
            there = False
        if not there:
            _export(experiment, name, architecture, params, directory)
        found[name] = part
    return found


def _is_there(directory: Path, name: str, identity: str) -> bool:
    if not directory.exists():
        return False
    remedy = f"Delete {directory} to export it again."
    verify_manifest(directory, remedy)
    if read_json(directory / REPORT, remedy).get(_FEDERATION) != {"name": name, "run": identity}:
        raise UserError(f"{directory / REPORT}: not of this run. {remedy}")
    return True


def _export(experiment: Experiment, name: str, architecture: Architecture, params: Params, directory: Path) -> None:
    data, net = experiment.data, experiment.net
    examples, _ = data.validation.read(np.arange(min(_PROBE, len(data.validation))))

    def measure(subnet: Subnet) -> JsonObject:
        splits = {"validation": data.validation, "test": data.test}
        return {
            **{
                f"{split}_{key}": value
                for split, rows in splits.items()
                for key, value in reached(subnet, rows, f"{directory}: {split} split").items()
            },
            _FEDERATION: {"name": name, "run": experiment.config.identity},
            "data_fingerprint": data.fingerprint,
            "seed": experiment.config.seed,
        }

    export_subnet(
        net, params, architecture, directory,
        statistics=None,
        preprocessing=data.preprocessing(experiment.space, net.example(architecture)),
        input_shape=examples.shape[1:],
        labels=data.class_names,
        probe=examples,
        measure=measure,
        stablehlo=experiment.config.export.stablehlo,
        outputs=data.outputs,
    )  # fmt: skip
