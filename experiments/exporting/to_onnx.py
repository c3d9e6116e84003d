"""Exported subnets of a run as ONNX files: `RUN/onnx/NAME`, each proved by ONNX Runtime against the supernet."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.configuration.experiment_config import load_config
from experiments.experiment import Experiment, build_experiment
from experiments.exporting.names import exported_names
from experiments.exporting.stage import statistics
from experiments.process.compilation import use_compilation_cache
from experiments.run_directory import RunDirectory
from experiments.searching.stage import cut_from
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.run_identity import CUT_FROM
from experiments.subnets.loading import load_exported
from experiments.training.stage import trained_params
from experiments.user_input.extras import check_installed
from search_spaces import UserError
from search_spaces.sealed_json import read_json
from supernet.engine.supernet import Params
from supernet.export.export import PARITY_TOLERANCE
from supernet.export.subnet import ARCHITECTURE, REPORT, TOKENIZER, Subnet
from supernet.storage.manifest import atomic_directory, write_manifest

if TYPE_CHECKING:
    from experiments.exporting.quantization import Quantization
    from supernet.onnx.network import Settings

MODEL = "network.onnx"
_PROBE = 64
_NEEDED = ("onnx", "onnxruntime")


@dataclass(frozen=True)
class _Trained:
    experiment: Experiment
    params: Params
    origin: dict[str, str]


def check_onnx_installed() -> None:
    """Refuses to go on without the extra.

    Raises:
        UserError: A package is missing.
    """
    check_installed("--format onnx", "onnx", _NEEDED)


def export_onnx(
    run: Path, names: Sequence[str], settings: "Settings", quantization: "Quantization | None" = None
) -> list[dict[str, Any]]:
    """Writes subnets of a run as ONNX files.

    Args:
        run: The run directory, with exported subnets.
        names: Which; all of them when empty.
        settings: What is chosen for the files.
        quantization: Eight-bit files are written, to `RUN/onnx/NAME.int8`.

    Returns:
        For JSON: `subnet`, `directory`, and the figures of its report.

    Raises:
        UserError: There is no such subnet, it has an operation that ONNX lacks, its file differs from the supernet, it
            loses too much in eight bits, or it was written before. Those before it are there.
    """
    check_onnx_installed()
    names = exported_names(run, names)
    for name in names:
        if (there := _place(run, name, quantization)).exists():
            raise UserError(f"{there}: exists, and is left as it is. Move it to write it again.")
    config = load_config(run / "config.yaml")
    with RunDirectory.create_or_resume(run, config) as directory:
        use_compilation_cache(run / "cache")
        experiment = build_experiment(config)
        keep = config.train.keep_last, config.train.keep_best
        with Checkpoints(directory.checkpoints, *keep, run=config.identity) as checkpoints:
            params = trained_params(experiment, checkpoints)
        trained = _Trained(experiment, params, dict(cut_from(experiment, params)))
        return [_export(run, name, trained, settings, quantization) for name in names]


def _place(run: Path, name: str, quantization: "Quantization | None") -> Path:
    return run / "onnx" / (name if quantization is None else f"{name}.int8")


def _export(
    run: Path, name: str, trained: _Trained, settings: "Settings", quantization: "Quantization | None"
) -> dict[str, Any]:
    from supernet.onnx.network import onnx_network
    from supernet.onnx.runtime import versions

    directory, out = run / "subnets" / name, _place(run, name, quantization)
    subnet = load_exported(directory)
    again = f"Delete {directory} to export it again."
    if read_json(directory / REPORT, again).get(CUT_FROM) != trained.origin:
        raise UserError(f"{directory / REPORT}: cut from other weights than those of this run. {again}")
    genes = np.array(read_json(directory / ARCHITECTURE, again)["genes"], np.int32)
    model = onnx_network(str(directory), subnet, settings)
    content = model.SerializeToString()
    examples, expected = _expected(subnet, genes, trained)
    difference = _difference(content, examples, expected, settings)
    if not difference <= PARITY_TOLERANCE:
        raise UserError(
            f"{out}: ONNX Runtime's outputs differ from the supernet's by {difference:.2e}, more than "
            f"{PARITY_TOLERANCE:.0e}. Nothing was written; this is a defect of the conversion."
        )
    figures: dict[str, Any] = {"parity_error": difference}
    if quantization is not None:
        from experiments.exporting.quantization import quantized

        model, found = quantized(str(out), model, subnet, trained.experiment.data, settings.batch, quantization)
        content = model.SerializeToString()
        figures = {
            "float32_parity_error": difference,
            "int8_difference": _difference(content, examples, expected, settings),
            "quantization": found,
        }
    report = {
        **figures,
        "proved_on": {"split": "validation", "examples": len(examples)},
        **asdict(settings),
        "nodes": len(model.graph.node),
        "bytes": len(content),
        CUT_FROM: trained.origin,
        "versions": {"jax": jax.__version__, **versions()},
    }
    with atomic_directory(out) as temporary:
        (temporary / MODEL).write_bytes(content)
        if (directory / TOKENIZER).is_dir():
            shutil.copytree(directory / TOKENIZER, temporary / TOKENIZER)
        (temporary / REPORT).write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        write_manifest(temporary)
    return {"subnet": name, "directory": str(out), **report}


def _expected(subnet: Subnet, genes: np.ndarray, trained: _Trained) -> tuple[np.ndarray, np.ndarray]:
    """Returns validation examples, and the supernet's outputs on them."""
    experiment = trained.experiment
    split, net = experiment.data.validation, experiment.net
    examples, _ = split.read(np.arange(min(_PROBE, len(split))))
    apply = jax.jit(net.apply, static_argnames=("program", "collect"))
    logits, _ = apply(
        trained.params,
        jnp.asarray(genes),
        subnet.preprocessing(jnp.asarray(examples)),
        program=net.space.program(genes),
        statistics=statistics(experiment, trained.params, genes),
    )
    return examples, subnet.outputs.serve(np.asarray(logits))


def _difference(content: bytes, examples: np.ndarray, expected: np.ndarray, settings: "Settings") -> float:
    """Returns the largest difference of ONNX Runtime's outputs, over the largest output (at least 1)."""
    from supernet.onnx.runtime import largest_difference, run, session

    return largest_difference(run(session(content), examples, settings.batch), expected)
