"""The contracts of a data source and of a task: splits that repeat, and outputs, losses and settings that fit them."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.contracts import require
from experiments.data import AnySource, Dataset, Split
from experiments.objective import OBJECTIVES
from experiments.records.plain import JsonObject
from search_spaces.randomness import Purpose, stream
from supernet.engine.supernet import Supernet
from supernet.tasks.task import TASKS

SOURCE, TASK = "data.source", "space.family"
_ROWS, _FRACTION = 4, 0.2


def check_source(source: AnySource) -> None:
    """Checks that a source gives the same splits again, and examples that can be read by number.

    Args:
        source: With its settings; it is read three times.

    Raises:
        ContractError: The source does not return a data set, or does not repeat.
    """
    name = type(source).__name__
    data, again = (source.load(0, _FRACTION) for _ in range(2))
    require(isinstance(data, Dataset), SOURCE, f"{name}.load returns {type(data).__name__}, not a Dataset.")
    require(
        data.inputs == source.inputs,
        SOURCE,
        f"{name}.inputs is {source.inputs!r}, and its data are {data.inputs!r}. Give both the name of one task.",
    )
    digits = isinstance(data.fingerprint, str) and len(data.fingerprint) == 64
    require(digits, SOURCE, f"{name}: fingerprint {data.fingerprint!r} is no SHA-256 in hexadecimal.")
    require(data.fingerprint == again.fingerprint, SOURCE, f"{name}: fingerprints differ between two readings.")
    for split in ("train", "validation", "test"):
        _check_split(f"{name}: {split}", getattr(data, split), getattr(again, split))
    few = source.load(1, _FRACTION, max(2, len(data.train) // 2))
    require(
        len(few.train) <= max(2, len(data.train) // 2),
        SOURCE,
        f"{name}.load gives {len(few.train)} training examples with train_limit {max(2, len(data.train) // 2)}.",
    )
    _check_split(f"{name}: test of another seed", data.test, few.test)


def _check_split(where: str, split: Split, again: Split) -> None:
    require(len(split) > 0, SOURCE, f"{where}: holds no example.")
    rows = np.arange(min(_ROWS, len(split)))
    x, labels = split.read(rows)
    require(
        len(x) == len(labels) == len(rows),
        SOURCE,
        f"{where}: {len(rows)} rows are read as {len(x)} examples and {len(labels)} labels.",
    )
    groups = split.strata
    require(groups.shape == (len(split),), SOURCE, f"{where}: strata have shape {groups.shape}, not ({len(split)},).")
    for other, at in ((again, rows), (split, rows), (split.take(rows[::-1]), rows[::-1])):
        found, of_found = other.read(at)
        same = np.array_equal(found, x) and np.array_equal(of_found, labels)
        require(same, SOURCE, f"{where}: the same rows are read as other examples. Reading must repeat.")


def check_task(data: Dataset, net: Supernet) -> None:
    """Checks what a task makes of labels, outputs and settings, on a few examples and random outputs.

    Args:
        data: A data set of the task.
        net: Supernet of a space that was built for the data.

    Raises:
        ContractError: A loss, figure or setting has another shape or value than all tasks'.
    """
    task, outputs, name = TASKS[data.inputs], data.outputs, type(data.outputs).__name__
    largest, rows = net.space.largest, np.arange(min(_ROWS, len(data.train)))
    x, labels = data.train.read(rows)
    given, example = data.prepared(x), net.example(largest)
    x = jax.ShapeDtypeStruct((len(rows), *example.shape), example.dtype)
    shape = jax.eval_shape(lambda params, x: net.apply_sliced(params, largest, x), net.shapes, x).shape
    require(given.dtype == example.dtype, TASK, f"{data.inputs}: data are {given.dtype}, the network {example.dtype}.")
    logits = jnp.asarray(stream(0, Purpose.CONTRACT).standard_normal(shape), jnp.float32)
    targets = jnp.asarray(outputs.encode(labels))
    losses, figures = outputs.losses(logits, targets), outputs.figures(logits, targets)
    counted = outputs.counted(targets)
    for what, found in (("losses", losses), ("figures", figures), ("counted", counted)):
        text = f"{name}.{what} has shape {found.shape} for outputs {shape}: one number for each output, {shape[:-1]}."
        require(found.shape == shape[:-1], TASK, text)
    require(bool(jnp.isfinite(losses[counted]).all()), TASK, f"{name}.losses of random outputs are not finite.")
    for what, found in (
        ("mean", outputs.mean(losses, targets)),
        ("gradient_norms", outputs.gradient_norms(logits, targets)),
    ):
        text = f"{name}.{what} has shape {found.shape}; expected one finite number for each of {len(rows)} examples."
        require(found.shape == (len(rows),) and bool(jnp.isfinite(found).all()), TASK, text)
    known = ", ".join(OBJECTIVES)
    require(outputs.objective in OBJECTIVES, TASK, f"{name}.objective is {outputs.objective!r}, none of {known}.")
    own: Any = data.preprocessing(net.space, example)
    config = _through_json({"preprocessing": own.as_dict(), "outputs": outputs.as_dict()})
    for what, found, expected in (
        ("read_input", task.read_input(config), own),
        ("read_outputs", task.read_outputs(config), outputs),
    ):
        text = f"{task.__name__}.{what} gives {found!r}, and {expected!r} was written. Read back what as_dict writes."
        require(found == expected, TASK, text)
    require(own.task == data.inputs, TASK, f"{type(own).__name__}.task is {own.task!r}, not {data.inputs!r}.")


def _through_json(config: JsonObject) -> JsonObject:
    return json.loads(json.dumps(config))
