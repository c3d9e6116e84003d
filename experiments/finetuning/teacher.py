"""The teacher of a finetuning: an exported network, or the largest network of a run's supernet, exported for it."""

import hashlib
from pathlib import Path

import numpy as np

from experiments.configuration.experiment_config import load_config
from experiments.data.tokenizer import files_of
from experiments.experiment import build_experiment
from experiments.exporting.stage import statistics
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.run_files import CONFIG, identity_of, is_run
from experiments.training.stage import trained_params
from search_spaces import UserError
from supernet.export.export import export_subnet
from supernet.storage.manifest import MANIFEST, verify_manifest

_PROBE = 16


def check_teacher(given: Path | None) -> None:
    """Checks that a teacher is an exported network, whole, or a run.

    Raises:
        UserError: The directory is neither, or is damaged.
    """
    if given is None:
        return
    if (given / MANIFEST).is_file():
        verify_manifest(given, "Export it again from its run.")
    elif not is_run(given):
        raise UserError(f"--teacher: {given} is neither an exported network nor a run. Give one of them.")


def teacher_directory(given: Path | None, work: Path) -> Path | None:
    """Returns the exported network that teaches.

    Args:
        given: An exported network, a run, or None.
        work: Directory to which the largest network of a run is exported; it is used again while the run has the same
            settings.

    Raises:
        UserError: The directory is neither, or the run's training has not finished.
    """
    check_teacher(given)
    if given is None or (given / MANIFEST).is_file():
        return None if given is None else given.absolute()
    of = bytes(given.resolve()) + (given / CONFIG).read_bytes()
    directory = work / f"teacher_{hashlib.sha256(of).hexdigest()[:12]}"
    if not (directory / MANIFEST).is_file():
        _export_largest(given, directory)
    return directory


def _export_largest(run: Path, directory: Path) -> None:
    config = load_config(run / "config.yaml")
    experiment = build_experiment(config)
    data, space = experiment.data, experiment.space
    with Checkpoints(run / "checkpoints", config.train.keep_last, config.train.keep_best, identity_of(run)) as saved:
        params = trained_params(experiment, saved)
    probe, _ = data.validation.read(np.arange(min(_PROBE, len(data.validation))))
    export_subnet(
        experiment.net, params, space.largest, directory,
        statistics=statistics(experiment, params, np.array(space.largest.genes, np.int32)),
        preprocessing=data.preprocessing(space, experiment.net.example(space.largest)),
        input_shape=probe.shape[1:], labels=data.class_names, probe=probe, measure=lambda subnet: {}, stablehlo=False,
        tokenizer=None if data.tokenizer is None else files_of(data.tokenizer), bos=data.bos, outputs=data.outputs,
    )  # fmt: skip
