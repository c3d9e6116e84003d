"""External teachers: exported subnets, networks as they were imported, or any function that a user names."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import Dataset, ImageDataset
from experiments.data.array_dataset import ArrayDataset
from experiments.data.class_names import are_numbers, class_numbers
from experiments.pretrained.directory import ImportedDirectory
from experiments.subnets.loading import load_exported
from experiments.subnets.tokenizer import check_tokenizer, tokenizer_of
from search_spaces import UserError
from supernet.engine.supernet import Supernet
from supernet.export.subnet import Subnet, compiled
from supernet.layers.resolution import resize
from supernet.tasks.arrays import Standardised
from supernet.tasks.distillation import Teacher
from supernet.tasks.images import Preprocessing

_KEY = "train.distillation.teachers"


def load_teachers(names: Sequence[str], data: Dataset, net: Supernet, temperature: float) -> Teacher | None:
    """Returns a function of the network's input to the mean distribution of all teachers; None without teachers.

    Args:
        names: Directories of exported subnets or of imported networks, or `module:function`.
        data: Data on which they teach.
        net: Whose subnets they are to teach.
        temperature: Softens each teacher's distribution.

    Raises:
        UserError: One of them cannot be loaded, or gives other outputs than the subnets do.
    """
    if not names:
        return None
    teachers: list[Teacher] = [_load(name, data) for name in names]
    examples, labels = data.train.read(np.zeros(2, np.int64))
    numbers = labels.dtype.kind == "f"
    x, expected = data.prepared(examples), labels.shape if numbers else (*labels.shape, net.classes)
    for name, teacher in zip(names, teachers, strict=True):
        try:
            found = jax.eval_shape(teacher, x).shape
        except Exception as error:  # whatever a user's function raises is about that function
            raise UserError(f"{_KEY}: {name!r} fails on {data.inputs} of shape {x.shape}: {error}") from error
        if found != expected:
            raise UserError(
                f"{_KEY}: {name!r} gives shape {found} for 2 {data.unit}, expected {expected}. Name a teacher of these "
                f"{'numbers' if numbers else 'classes' if data.class_names else 'tokens'}."
            )

    def mean(x: jax.Array) -> jax.Array:
        return jnp.mean(jnp.stack([data.outputs.teach(teacher(x), temperature) for teacher in teachers]), axis=0)

    return mean


def _load(name: str, data: Dataset) -> Teacher:
    imported = ImportedDirectory(Path(name))
    if imported.manifest.is_file():
        check_tokenizer(
            f"{_KEY}: {name}", None if imported.tokenizer is None else str(imported.tokenizer), data.tokenizer
        )
        return compiled(imported.module())
    if Path(name).is_dir():
        return _subnet(name, data)
    module, colon, function = name.partition(":")
    if not colon:
        raise UserError(
            f"{_KEY}: {name!r} is no directory of an exported subnet, and no module:function; parent needs a section "
            "start. Mend it."
        )
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ImportError as error:
        raise UserError(f"{_KEY}: {name!r}: {error}. Put the module beside the experiment file.") from None
    if not callable(found):
        raise UserError(f"{_KEY}: {name!r}: {module} has no function {function!r}. Name one that it has.")
    return cast(Teacher, found)


def _same_statistics(directory: str, subnet: Subnet, data: ArrayDataset) -> None:
    """Refuses a teacher of arrays whose inputs or outputs mean something else."""
    same = subnet.preprocessing == Standardised(data.train.features, data.mean, data.std)
    if not same or subnet.outputs != data.outputs or tuple(subnet.config["labels"]) != data.class_names:
        raise UserError(
            f"{_KEY}: {directory}: was trained on other features, statistics, targets or classes than data has. Give a "
            "teacher that was trained on the same training split."
        )


def _subnet(directory: str, data: Dataset) -> Teacher:
    """An exported subnet on tokens, or on images that were normalised, and perhaps mixed, for the data at hand.

    Where both have class names, they are matched, and the teacher may know more.
    """
    subnet = load_exported(Path(directory))
    own = subnet.preprocessing
    check_tokenizer(f"{_KEY}: {directory}", tokenizer_of(subnet, Path(directory)), data.tokenizer)
    if isinstance(data, ArrayDataset):
        _same_statistics(directory, subnet, data)
    labels, forward = subnet.config["labels"], subnet.forward
    numbers = None
    if data.class_names and labels and not (are_numbers(labels) or are_numbers(data.class_names)):
        numbers = class_numbers(f"{_KEY}: data", data.class_names, labels, f"teacher {directory}")
    if not isinstance(data, ImageDataset) or not isinstance(own, Preprocessing):
        return forward if numbers is None else lambda x: forward(x)[:, numbers]
    mean, std, own_mean, own_std = (
        jnp.asarray(value, jnp.float32) for value in (data.mean, data.std, own.mean, own.std)
    )

    def teacher(x: jax.Array) -> jax.Array:
        x = (x * std + mean - own_mean) / own_std
        logits = forward(resize(x, own.image_size))
        return logits if numbers is None else logits[:, numbers]

    return teacher
