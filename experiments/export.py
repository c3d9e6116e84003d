"""The export stage: the best candidate of each budget, cut out, proved, measured on the test split, written down."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments.data.examples import Examples
from experiments.device import DEVICE_METRICS, DeviceCost
from experiments.experiment import Experiment
from experiments.interrupt import Interrupted, StopRequest
from experiments.measure import lowered, memory_of
from experiments.run_directory import RunDirectory
from search import Archive, ResolvedBudget, best
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
            rows.append(export_budget(experiment, params, archive, budget, run))
    return rows


def export_budget(
    experiment: Experiment,
    params: Params,
    archive: Archive,
    budget: ResolvedBudget,
    run: RunDirectory,
    cost: DeviceCost | None = None,
) -> dict[str, Any]:
    """Exports the best candidate of one budget, unless it is there and whole.

    Args:
        experiment: The experiment.
        params: Weights of its supernet.
        archive: What was evaluated.
        budget: The budget.
        run: The run directory.
        cost: Costs on the device that the report tells of; those of the experiment's own when None.

    Returns:
        Its row for the summary.

    Raises:
        UserError: No candidate meets the budget, or the export that is there was altered.
    """
    index = best(archive, budget)
    if index is None:
        raise UserError(
            f"budgets.{budget.name}: none of the {len(archive)} evaluated candidates meets it. "
            "Raise search.evaluations or the budget."
        )
    directory = run.subnets / budget.name
    report = _existing(directory, archive.genes[index])
    if report is None:
        report = _export(experiment, params, archive, index, directory, cost or experiment.cost_on_device)
    return {
        "budget": budget.name,
        "limits": dict(budget.limits),
        **report["costs"],
        **{key: report[key] for key in ("memory", "predicted") if key in report},
        "validation_accuracy": report["validation_accuracy"],
        "test_accuracy": report["test_accuracy"],
        "parity_error": report["parity_error"],
        "directory": str(directory),
    }


def _existing(directory: Path, genes: np.ndarray) -> dict[str, Any] | None:
    if not directory.exists():
        return None
    verify_manifest(directory, f"Delete {directory} to export it again.")
    if json.loads((directory / ARCHITECTURE).read_text())["genes"] != genes.tolist():
        return None
    return json.loads((directory / REPORT).read_text())


def _export(
    experiment: Experiment, params: Params, archive: Archive, index: int, directory: Path, cost: DeviceCost | None
) -> dict[str, Any]:
    data, net, space = experiment.data, experiment.net, experiment.space
    architecture = space.architecture(archive.genes[index])
    height, width, _ = net.example(architecture).shape

    def measure(subnet: Subnet) -> dict[str, Any]:
        return {
            "validation_accuracy": accuracy(subnet, data.validation),
            "test_accuracy": accuracy(subnet, data.test),
            "search_error": float(archive.errors[index]),
            **_on_device(subnet, archive.genes[index], cost),
            "data_fingerprint": data.fingerprint,
            "seed": experiment.config.seed,
        }

    return export_subnet(
        net, params, architecture, directory,
        statistics=statistics(experiment, params, archive.genes[index]),
        preprocessing=Preprocessing((height, width), data.mean, data.std),
        input_shape=data.image_shape,
        labels=data.class_names,
        probe=data.validation.images(np.arange(min(_PROBE, len(data.validation)))),
        measure=measure,
        stablehlo=experiment.config.export.stablehlo,
    )  # fmt: skip


def _on_device(subnet: Subnet, genes: np.ndarray, cost: DeviceCost | None) -> dict[str, Any]:
    """The compiler's own figure for the network's memory; and the device file's predictions, where there is one."""
    batch_size = 1 if cost is None else cost.batch_size
    shape = (*subnet.preprocessing.image_size, subnet.config["input"]["shape"][-1])
    example = jax.ShapeDtypeStruct(shape, np.float32)
    memory = memory_of(lowered(subnet.module, example, batch_size)[0].compile()).total
    found: dict[str, Any] = {"memory": {"bytes": memory, "batch_size": batch_size, "platform": jax.default_backend()}}
    if cost is not None:
        predicted = {metric: cost(genes[None])[metric][0].item() for metric in DEVICE_METRICS}
        found["predicted"] = {**predicted, "batch_size": batch_size, "device": cost.device.name}
    return found


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
