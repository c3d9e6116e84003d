"""The export stage: the best candidate of each budget, cut out, proved, measured on the test split, written down."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments.data import Split
from experiments.data.tokenizer import files_of
from experiments.devices.device_file import DEVICE_METRICS, DeviceCost
from experiments.devices.measure import median_seconds
from experiments.devices.runtime import Network, Program, Runtime, runtime_here
from experiments.devices.runtimes.jax import Jax
from experiments.experiment import Experiment
from experiments.exporting.lineage import LINEAGE, Lineage, TrainedOn
from experiments.metrics import Metric
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.process.plugin_errors import plugin_errors
from experiments.process.progress import progress_bar
from experiments.records import CompiledMemory, DeviceFigures, ExportedNetwork, Figures, MeasuredLatency, Prediction
from experiments.records.plain import JsonObject, plain, under_prefix
from experiments.run_directory import RunDirectory
from experiments.searching.stage import origin_of
from experiments.storage.earlier import set_export_aside
from experiments.storage.run_identity import ORIGIN
from search import Archive, ResolvedBudget, best
from search_spaces import UserError
from search_spaces.sealed_json import read_json
from supernet.engine.supernet import Params, Statistics
from supernet.export.export import export_subnet
from supernet.export.subnet import ARCHITECTURE, REPORT, Subnet
from supernet.storage.manifest import verify_manifest
from supernet.tasks.outputs import Measures

_CHUNK, _BATCH = 4096, 256  # outputs, examples
_PROBE = 64
_WARMUP, _REPEATS = 3, 20  # calls, samples


def export(
    experiment: Experiment, params: Params, archive: Archive, run: RunDirectory, stop: StopRequest, quiet: bool
) -> list[ExportedNetwork]:
    """Exports one subnet a budget; those that are already there and whole are kept.

    Returns:
        A network a budget.

    Raises:
        UserError: No candidate meets a budget, or an export that is there was altered.
        Interrupted: `stop` was requested; the finished exports are whole.
    """
    rows, origin = [], origin_of(experiment, params)
    bar = progress_bar(experiment.budgets, desc="export", unit="subnet", quiet=quiet)
    with bar:
        for budget in bar:
            if stop:
                raise Interrupted(f"stopped after exporting {len(rows)} of {len(experiment.budgets)} subnets")
            rows.append(export_budget(experiment, params, archive, budget, run, origin))
    return rows


def export_budget(
    experiment: Experiment,
    params: Params,
    archive: Archive,
    budget: ResolvedBudget,
    run: RunDirectory,
    origin: Mapping[str, str],
    cost: DeviceCost | None = None,
) -> ExportedNetwork:
    """Exports the best candidate of one budget, unless it is there and whole.

    Args:
        experiment: The experiment.
        params: Weights of its supernet.
        archive: Evaluated candidates.
        budget: The budget.
        run: The run directory.
        origin: Result of `origin_of`, which the report contains; exports of another origin are not kept.
        cost: Costs on the device that the report tells of; those of the experiment's own when None.

    Returns:
        The network.

    Raises:
        UserError: No candidate meets the budget, or the export that is there was altered, or is of another run.
    """
    index = best(archive, budget)
    if index is None:
        raise UserError(
            f"budgets.{budget.name}: none of the {len(archive)} evaluated candidates meets it. "
            "Raise search.evaluations or the budget."
        )
    directory = run.subnets / budget.name
    report = _existing(directory, archive.genes[index], origin)
    if report is None:
        if directory.exists():
            set_export_aside(run.path, budget.name)
        with plugin_errors(experiment.config.plugins, f"{directory} was exported"):
            report = _export(experiment, params, archive, index, directory, origin, cost or experiment.cost_on_device)
    memory = CompiledMemory(**report["memory"])
    over = _over_memory(memory, budget, cost or experiment.cost_on_device)
    if over:
        tqdm.write(f"warning: {over}", file=sys.stderr)
    return ExportedNetwork(
        budget=budget.name,
        limits=dict(budget.limits),
        costs=report["costs"],
        memory=memory,
        validation=under_prefix(report, "validation_"),
        test=under_prefix(report, "test_"),
        parity_error=report["parity_error"],
        directory=str(directory),
        predicted=Prediction(**report["predicted"]) if "predicted" in report else None,
        measured=MeasuredLatency(**report["measured"]) if "measured" in report else None,
        over_limit=over,
    )


def _over_memory(memory: CompiledMemory, budget: ResolvedBudget, cost: DeviceCost | None) -> str | None:
    """Returns a warning where the compiler's count exceeds the limit that the device file's prediction meets."""
    most = dict(budget.limits).get("memory_bytes")
    if most is None or cost is None or memory.bytes <= most:
        return None
    known = cost.device.device.platform, cost.device.runtime.name, cost.batch_size
    if (memory.platform, memory.runtime, memory.batch_size) != known:
        return None  # for another kind of device
    counts = "the compiler" if memory.runtime == "jax" else f"the graph for {memory.runtime}"
    return (
        f"budgets.{budget.name}: {counts} counts {memory.bytes:,} bytes for the exported network, more than"
        f" memory_bytes<={most:,.0f}, which the device file predicts it to meet. Lower the limit by "
        f"{memory.bytes / most - 1:.0%}."
    )


def _existing(directory: Path, genes: np.ndarray, origin: Mapping[str, str]) -> JsonObject | None:
    """The report of the export that is there; None where there is none, or another architecture of this run."""
    if not directory.exists():
        return None
    remedy = f"Delete {directory} to export it again."
    verify_manifest(directory, remedy)
    report, architecture = (read_json(directory / name, remedy) for name in (REPORT, ARCHITECTURE))
    if report.get(ORIGIN) != dict(origin):
        raise UserError(f"{directory / REPORT}: cut from other weights than those of this run. {remedy}")
    return report if architecture.get("genes") == genes.tolist() else None


def _export(
    experiment: Experiment,
    params: Params,
    archive: Archive,
    index: int,
    directory: Path,
    origin: Mapping[str, str],
    cost: DeviceCost | None,
) -> JsonObject:
    data, net, space = experiment.data, experiment.net, experiment.space
    trained_on = TrainedOn.of(experiment.config.data, data, experiment.config.seed)
    architecture = space.architecture(archive.genes[index])
    example = net.example(architecture)
    probe, _ = data.validation.read(np.arange(min(_PROBE, _chunk(data.validation), len(data.validation))))

    def measure(subnet: Subnet) -> JsonObject:
        splits = {"validation": data.validation, "test": data.test}

        def figures(split: str) -> Figures:
            where = f"{directory}: {split} split"
            return measured_figures(subnet, splits[split], where, experiment.metrics)

        return {
            **{f"{name}_{key}": value for name in splits for key, value in figures(name).items()},
            f"search_{experiment.objective.name}": float(archive.errors[index]),
            **plain(_on_device(subnet, example, archive.genes[index], cost)),
            ORIGIN: dict(origin),
            LINEAGE: Lineage(origin, (trained_on,)).as_json(),
            "data_fingerprint": data.fingerprint,
            "seed": experiment.config.seed,
        }

    return export_subnet(
        net, params, architecture, directory,
        statistics=statistics(experiment, params, archive.genes[index]),
        preprocessing=data.preprocessing(space, example),
        input_shape=probe.shape[1:],
        labels=data.class_names,
        probe=probe,
        measure=measure,
        stablehlo=experiment.config.export.stablehlo,
        tokenizer=None if data.tokenizer is None else files_of(data.tokenizer),
        bos=data.bos,
        outputs=data.outputs,
    )  # fmt: skip


def _on_device(
    subnet: Subnet, example: jax.ShapeDtypeStruct, genes: np.ndarray, cost: DeviceCost | None
) -> DeviceFigures:
    """Returns the figure of the network's memory, and where there is a device file its predictions.

    Where the device is this machine, the memory is that of the device's runtime, which also times the network.
    """
    batch_size = 1 if cost is None else cost.batch_size
    here = None if cost is None else runtime_here(cost.device)
    runtime = here or Jax()
    (program,) = runtime.build([Network(subnet, example, batch_size)])
    return DeviceFigures(
        CompiledMemory(program.memory.total, batch_size, runtime.device().platform, runtime.name),
        None if cost is None else predicted(cost, genes),
        None if here is None else measured(here, program, batch_size),
    )


def predicted(cost: DeviceCost, genes: np.ndarray) -> Prediction:
    """Returns what a device file predicts for a network."""
    latency, memory = (cost(genes[None])[metric][0].item() for metric in DEVICE_METRICS)
    return Prediction(latency, memory, cost.batch_size, cost.device.name)


def measured(runtime: Runtime, program: Program, batch_size: int) -> MeasuredLatency:
    """Times a network."""
    (seconds,) = median_seconds([program], _WARMUP, _REPEATS, seed=0)
    ran = runtime.facts
    return MeasuredLatency(1e3 * seconds, batch_size, ran.name, ran.version, ran.threads)


def statistics(experiment: Experiment, params: Params, genes: np.ndarray) -> Statistics | None:
    """Calibrates the batch statistics of one subnet on the batches that the search used."""
    program = experiment.space.program(genes)
    return experiment.statistics_program(
        params, jnp.asarray(genes), jnp.asarray(experiment.calibration), program=program
    )


def reached(
    subnet: Subnet, split: Split, where: str, groups: Sequence[Measures] = (), group_of: Sequence[int] | np.ndarray = ()
) -> Figures:
    """Measures a standalone network on a split.

    Args:
        subnet: The network.
        split: The examples.
        where: The network and the split in messages.
        groups: Empty figures, each of which gets a part of the examples besides.
        group_of: For each example the index of its group.

    Returns:
        The figures that the task has (`Outputs.measures`), such as `accuracy`, or `rmse`, `mae` and `r2`.

    Raises:
        UserError: Outputs are not finite: the network has failed, as it would have in a search.
    """
    chunk, measures = _chunk(split), subnet.outputs.measures(tuple(subnet.config["labels"]))
    for start in range(0, len(split), chunk):
        examples, labels = split.read(np.arange(start, min(start + chunk, len(split))))
        served = subnet.predict(examples, min(_BATCH, chunk))
        broken = int((~np.isfinite(served)).reshape(len(served), -1).any(axis=1).sum())
        if broken:
            raise UserError(
                f"{where}: the network has failed: its outputs are not finite on {broken} of the examples {start:,} to "
                f"{start + len(served) - 1:,}, so it has no {subnet.outputs.figure}. Train with a lower "
                "train.optimizer.learning_rate or clip_norm, in a new run directory."
            )
        measures.add(served, labels)
        for number, group in enumerate(groups):
            mine = np.asarray(group_of[start : start + len(served)]) == number
            if mine.any():
                group.add(served[mine], labels[mine])
    return measures.figures()


def measured_figures(subnet: Subnet, split: Split, where: str, metrics: Sequence[Metric]) -> Figures:
    """Measures a standalone network on a split, like `reached`, with further metrics."""
    found = dict(reached(subnet, split, where))
    for metric in metrics:
        found |= metric.figures(subnet, split, where)
    return found


def _chunk(split: Split) -> int:
    """Returns the number of examples that are passed at a time; few where each has many outputs."""
    _, labels = split.read(np.arange(1))
    return max(_CHUNK // labels.size, 1)
