"""Exported networks of a run written once more in another format, each proved against the supernet."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.configuration.experiment_config import load_config
from experiments.data.dataset import Dataset
from experiments.devices.runtime import FileRuntime, Network, runtime_here
from experiments.experiment import Experiment, build_experiment
from experiments.exporting.names import exported_names
from experiments.exporting.stage import measured, statistics
from experiments.process.compilation import use_compilation_cache
from experiments.records import ConvertedNetwork
from experiments.records.plain import JsonObject, plain
from experiments.run_directory import RunDirectory
from experiments.searching.stage import origin_of
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.run_identity import ORIGIN
from experiments.subnets.loading import load_exported
from experiments.training.stage import trained_params
from search_spaces import UserError
from search_spaces.sealed_json import read_json
from supernet.engine.supernet import Params
from supernet.export.export import PARITY_TOLERANCE, largest_difference
from supernet.export.subnet import ARCHITECTURE, REPORT, Subnet
from supernet.storage.manifest import atomic_directory, write_manifest

_PROBE = 64


@dataclass(frozen=True)
class Source:
    """An exported network, and what the supernet computes on real examples.

    Attributes:
        directory: The network's own directory.
        out: Directory of the other format.
        subnet: The network.
        genes: Its genes.
        experiment: The experiment of the run.
        examples: Validation examples.
        expected: The supernet's outputs on them, in the units of labels.
    """

    directory: Path
    out: Path
    subnet: Subnet
    genes: np.ndarray
    experiment: Experiment
    examples: np.ndarray
    expected: np.ndarray

    @property
    def data(self) -> Dataset:
        """Data of the run."""
        return self.experiment.data

    def prove(self, outputs: np.ndarray, runtime: str) -> float:
        """Returns the difference of a runtime's outputs on the examples from the supernet's, over the largest output.

        Raises:
            UserError: The difference is more than `PARITY_TOLERANCE`.
        """
        difference = largest_difference(outputs, self.expected)
        if not difference <= PARITY_TOLERANCE:
            raise UserError(
                f"{self.out}: {runtime}'s outputs differ from the supernet's by {difference:.2e}, more than "
                f"{PARITY_TOLERANCE:.0e}. Nothing was written; this is a defect of the conversion."
            )
        return difference

    def latency(self, kind: type[FileRuntime], content: Any, batch: int | None, predicted: bool = True) -> JsonObject:
        """Returns predicted and measured latency, where the run's device is this machine, and of this runtime.

        Args:
            kind: The runtime.
            content: The file.
            batch: Its batch size; any when None.
            predicted: Whether the device file's prediction is of such files.
        """
        cost = self.experiment.cost_on_device
        runtime = None if cost is None else runtime_here(cost.device)
        if cost is None or not isinstance(runtime, kind):
            return {}
        example = self.experiment.net.example(self.experiment.space.architecture(self.genes))
        network = Network(self.subnet, example, batch or cost.batch_size)
        found = {"measured": plain(measured(runtime, runtime.load(content, network), network.batch_size))}
        if predicted and network.batch_size == cost.batch_size:
            latency = cost(self.genes[None])["latency_ms"][0].item()
            found["predicted"] = {"latency_ms": latency, "batch_size": cost.batch_size, "device": cost.device.name}
        return found


def convert_exports(
    run: Path,
    names: Sequence[str],
    out: Callable[[str], Path],
    convert: Callable[[Source, Path], JsonObject],
) -> list[ConvertedNetwork]:
    """Writes exported networks of a run in another format, with a report and hashes.

    Args:
        run: The run directory, with exported subnets.
        names: Names of the subnets; all of them when empty.
        out: Directory of a network in the other format, from its name.
        convert: Writes the files of a network into a directory, and returns what its report says. `versions` there are
            added to.

    Returns:
        The networks in the other format.

    Raises:
        UserError: There is no such subnet, it cannot be converted, or it was written before. Those before it are there.
    """
    names = exported_names(run, names)
    for name in names:
        if (there := out(name)).exists():
            raise UserError(f"{there}: exists, and is left as it is. Move it to write it again.")
    config = load_config(run / "config.yaml")
    with RunDirectory.create_or_resume(run, config) as run_directory:
        use_compilation_cache(run / "cache")
        experiment = build_experiment(config)
        keep = config.train.keep_last, config.train.keep_best
        with Checkpoints(run_directory.checkpoints, *keep, run=config.identity) as checkpoints:
            params = trained_params(experiment, checkpoints)
        origin = dict(origin_of(experiment, params))
        return [_converted(run, name, out(name), experiment, params, origin, convert) for name in names]


def _converted(
    run: Path,
    name: str,
    out: Path,
    experiment: Experiment,
    params: Params,
    origin: dict[str, str],
    convert: Callable[[Source, Path], JsonObject],
) -> ConvertedNetwork:
    directory = run / "subnets" / name
    subnet = load_exported(directory)
    again = f"Delete {directory} to export it again."
    if read_json(directory / REPORT, again).get(ORIGIN) != origin:
        raise UserError(f"{directory / REPORT}: cut from other weights than those of this run. {again}")
    genes = np.array(read_json(directory / ARCHITECTURE, again)["genes"], np.int32)
    examples, expected = _expected(subnet, genes, experiment, params)
    with atomic_directory(out) as temporary:
        figures = convert(Source(directory, out, subnet, genes, experiment, examples, expected), temporary)
        report = {
            **figures,
            "proved_on": {"split": "validation", "examples": len(examples)},
            ORIGIN: origin,
            "versions": {"jax": jax.__version__, **figures["versions"]},
        }
        (temporary / REPORT).write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        write_manifest(temporary)
    return ConvertedNetwork(name, str(out), report)


def _expected(
    subnet: Subnet, genes: np.ndarray, experiment: Experiment, params: Params
) -> tuple[np.ndarray, np.ndarray]:
    """Returns validation examples, and the supernet's outputs on them."""
    split, net = experiment.data.validation, experiment.net
    examples, _ = split.read(np.arange(min(_PROBE, len(split))))
    logits, _ = net.compiled_apply(
        params,
        jnp.asarray(genes),
        subnet.preprocessing(jnp.asarray(examples)),
        program=net.space.program(genes),
        statistics=statistics(experiment, params, genes),
    )
    return examples, subnet.outputs.serve(np.asarray(logits))
