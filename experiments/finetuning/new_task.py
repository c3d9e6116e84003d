"""A new task for an exported network: its weights with a fresh head, exported as what a finetuning begins with."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
from flax import nnx

from experiments.data import Dataset
from experiments.data.tokenizer import files_of
from experiments.experiment import build_experiment
from experiments.finetuning.frame import alone
from experiments.finetuning.settings import Finetuning, content_of
from experiments.subnets.tokenizer import check_tokenizer, tokenizer_of
from search_spaces import FAMILIES, UserError
from search_spaces.randomness import Purpose
from search_spaces.sealed_json import read_json
from supernet.engine.embedding import embed
from supernet.engine.randomness import FreshWeights, key
from supernet.export.export import export_subnet
from supernet.export.subnet import ARCHITECTURE, OLD_PROGRAM, PROGRAM, Subnet, flatten, unflatten
from supernet.storage.manifest import MANIFEST

_PROBE = 16


def for_task(settings: Finetuning, subnet: Subnet, data: Dataset) -> Finetuning:
    """Returns the settings with a network for the task of the data, which is made where the source has another task.

    Args:
        settings: The network, its data and training.
        subnet: The network, as it was loaded.
        data: The data, as they were loaded.

    Raises:
        UserError: The data are of another tokenizer, or the experiment's space has no such network.
    """
    family, seed = subnet.config["family"], settings.config.seed if settings.seed is None else settings.seed
    if subnet.config["task"] == data.inputs or family not in FAMILIES or not FAMILIES[family].takes(data.inputs):
        return settings
    of = f"{content_of(settings.source)} {data.fingerprint} {seed}"
    out = settings.work / f"start_{hashlib.sha256(of.encode()).hexdigest()[:12]}"
    if not (out / MANIFEST).is_file():
        _export_with_new_head(settings, subnet, data, out, seed)
    return dataclasses.replace(settings, source=out, origin=settings.source)


def _export_with_new_head(settings: Finetuning, subnet: Subnet, data: Dataset, out: Path, seed: int) -> None:
    source = settings.source
    check_tokenizer(str(source), tokenizer_of(subnet, source), data.tokenizer)
    experiment = build_experiment(alone(settings.config), data)
    net, data = experiment.net, experiment.data
    architecture = net.space.encode(read_json(source / ARCHITECTURE, "Export it again.")["architecture"])
    own = flatten(nnx.to_pure_dict(nnx.state(subnet.module)))
    module = net.module(architecture, FreshWeights(key(seed, Purpose.TASK_HEAD)))
    weights = flatten(nnx.to_pure_dict(nnx.state(module)))
    for name in own.keys() & weights.keys():
        if own[name].shape != weights[name].shape:
            raise UserError(
                f"{settings.where}: space: is not that of {source}, whose weight {name} has shape {own[name].shape}, "
                f"not {weights[name].shape}. Copy the section from the config.yaml of its run."
            )
        weights[name] = own[name]
    probe, _ = data.validation.read(np.arange(min(_PROBE, len(data.validation))))
    export_subnet(
        net, embed(net, unflatten(weights), architecture), architecture, out,
        statistics=None, preprocessing=data.preprocessing(net.space, net.example(architecture)),
        input_shape=probe.shape[1:], labels=data.class_names, probe=probe, measure=lambda subnet: {},
        stablehlo=any((source / name).is_file() for name in (PROGRAM, OLD_PROGRAM)),
        tokenizer=None if data.tokenizer is None else files_of(data.tokenizer), bos=data.bos, outputs=data.outputs,
    )  # fmt: skip
