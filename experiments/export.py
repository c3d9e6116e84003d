"""The export stage: the best candidate of each budget, cut out, proved, measured on the test split, written down."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments.data.examples import Examples
from experiments.experiment import Experiment
from experiments.interrupt import Interrupted, StopRequest
from experiments.run_directory import RunDirectory
from search import Archive, best
from search_spaces import UserError
from supernet.evaluation import calibrate
from supernet.export import export_subnet
from supernet.manifest import verify_manifest
from supernet.subnet import ARCHITECTURE, REPORT, Preprocessing, Subnet
from supernet.supernet import Params, Statistics

_CHUNK = 4096
_PROBE = 64


def export(
    experiment: Experiment, params: Params, archive: Archive, run: RunDirectory, stop: StopRequest, quiet: bool
) -> list[dict[str, Any]]:
    """Exports one subnet a budget; those that are already there and whole are kept.

    Returns:
        A row a budget for the summary.

    Raises:
        UserError: No candidate meets a budget, or an export that is there was altered.
        Interrupted: `stop` was requested; the finished exports are whole.
    """
    rows = []
    bar = tqdm(experiment.budgets, desc="export", unit="subnet", disable=quiet or None, dynamic_ncols=True)
    with bar:
        for budget in bar:
            if stop:
                raise Interrupted(f"stopped after exporting {len(rows)} of {len(experiment.budgets)} subnets")
            index = best(archive, budget)
            if index is None:
                raise UserError(
                    f"budgets.{budget.name}: none of the {len(archive)} evaluated candidates meets it. "
                    "Raise search.evaluations or the budget."
                )
            directory = run.subnets / budget.name
            report = _existing(directory, archive.genes[index])
            if report is None:
                report = _export(experiment, params, archive, index, directory)
            rows.append(
                {
                    "budget": budget.name,
                    "limits": dict(budget.limits),
                    **report["costs"],
                    "validation_accuracy": report["validation_accuracy"],
                    "test_accuracy": report["test_accuracy"],
                    "parity_error": report["parity_error"],
                    "directory": str(directory),
                }
            )
    return rows


def _existing(directory: Path, genes: np.ndarray) -> dict[str, Any] | None:
    if not directory.exists():
        return None
    verify_manifest(directory, f"Delete {directory} to export it again.")
    if json.loads((directory / ARCHITECTURE).read_text())["genes"] != genes.tolist():
        return None
    return json.loads((directory / REPORT).read_text())


def _export(experiment: Experiment, params: Params, archive: Archive, index: int, directory: Path) -> dict[str, Any]:
    data, net, space = experiment.data, experiment.net, experiment.space
    architecture = space.architecture(archive.genes[index])
    size = net.input_size(architecture)

    def measure(subnet: Subnet) -> dict[str, Any]:
        return {
            "validation_accuracy": accuracy(subnet, data.validation),
            "test_accuracy": accuracy(subnet, data.test),
            "search_error": float(archive.errors[index]),
            "data_fingerprint": data.fingerprint,
            "seed": experiment.config.seed,
        }

    return export_subnet(
        net, params, architecture, directory,
        statistics=statistics(experiment, params, archive.genes[index]),
        preprocessing=Preprocessing(size, data.mean, data.std),
        input_shape=data.image_shape,
        labels=data.class_names,
        probe=data.validation.images(np.arange(min(_PROBE, len(data.validation)))),
        measure=measure,
        stablehlo=experiment.config.export.stablehlo,
    )  # fmt: skip


def statistics(experiment: Experiment, params: Params, genes: np.ndarray) -> Statistics | None:
    """Calibrated batch statistics of one subnet, from the same batches that the search used."""
    net, program = experiment.net, experiment.space.program(genes)
    run = jax.jit(lambda params, genes, batches: calibrate(net, params, genes, batches, program))
    return run(params, jnp.asarray(genes), jnp.asarray(experiment.calibration))


def accuracy(subnet: Subnet, examples: Examples) -> float:
    """Share of right answers of a standalone network."""
    right = 0
    for start in range(0, len(examples), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(examples)))
        right += int((subnet.predict(examples.images(rows)).argmax(axis=1) == examples.labels[rows]).sum())
    return right / len(examples)
