"""Subnet: an exported network, loaded and run without any supernet."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from jaxtyping import Array, Float, Shaped
from safetensors import SafetensorError
from safetensors.numpy import load_file

from search_spaces import FAMILIES, UserError
from search_spaces.sealed_json import JsonObject, parse_json
from supernet.engine.randomness import FreshWeights
from supernet.standalone import DERIVED, MODULES
from supernet.storage.manifest import verify_manifest
from supernet.tasks.inputs import Input
from supernet.tasks.outputs import Outputs
from supernet.tasks.task import TASKS

CONFIG, ARCHITECTURE, REPORT = "config.json", "architecture.json", "report.json"
WEIGHTS, ORBAX, PROGRAM, MLIR = "weights.safetensors", "orbax", "forward.jax_export", "forward.mlir"
OLD_PROGRAM = "forward.stablehlo"
"""Name of the program in exports of earlier versions."""
TOKENIZER = "tokenizer"
_REMEDY = "Export it again from its run."

Forward = Callable[[Any], Float[Array, "n *t c"]]
"""Examples to logits."""


@dataclass(frozen=True)
class Subnet:
    """A standalone network: `load_subnet` makes it from an exported directory.

    Attributes:
        config: Content of `config.json`: family, module arguments, input, preprocessing, labels.
        architecture: The readable architecture.
        module: A plain Flax module with its weights; None where its code is not here, and its program runs instead.
        weights: The weights as a nested dict of arrays.
        preprocessing: From what a user has to the module's input.
        outputs: Meaning of the network's outputs.
        program: The forward pass as `jax.export` has read it, for a network without module.
    """

    config: Mapping[str, Any]
    architecture: Mapping[str, Any]
    module: nnx.Module | None
    weights: Mapping[str, Any]
    preprocessing: Input
    outputs: Outputs
    program: jax.export.Exported | None = None

    @cached_property
    def forward(self) -> Forward:
        """The compiled forward pass: what `preprocessing` gives to logits, float32[b, classes] or [b, t, tokens]."""
        return self._compiled(lambda x: x)

    @cached_property
    def from_raw(self) -> Forward:
        """The forward pass compiled with the preprocessing before it: what a user has to logits; a program a shape."""
        return self._compiled(self.preprocessing)

    def _compiled(self, before: Forward) -> Forward:
        if self.module is not None:
            return compiled(self.module, before)
        program, weights = self.program, flatten(self.weights)
        assert program is not None
        call = jax.jit(lambda weights, x: program.call(weights, before(x)))
        return lambda x: call(weights, x)

    def predict(self, examples: Shaped[np.ndarray, "n ..."], batch_size: int = 256) -> Float[np.ndarray, "n *t c"]:
        """Logits of images, uint8[n, h, w, c], of tokens, int[n, t], or of other arrays; n may be 0.

        Where the network predicts numbers these are given, float64[n, c], in the units of the labels.

        Raises:
            UserError: Examples of another type or shape than the network takes.
        """
        self.preprocessing.check(examples, self.config["input"]["shape"])
        if not len(examples):
            example = jax.ShapeDtypeStruct((1, *examples.shape[1:]), examples.dtype)
            one = jax.eval_shape(self.from_raw, example)
            return self.outputs.serve(np.zeros((0, *one.shape[1:]), one.dtype))
        logits = []
        for start in range(0, len(examples), batch_size):
            part = examples[start : start + batch_size]
            logits.append(np.asarray(self.from_raw(filled_batch(part, min(batch_size, len(examples)))))[: len(part)])
        return self.outputs.serve(np.concatenate(logits))


def filled_batch(part: Shaped[np.ndarray, "n ..."], batch_size: int) -> Shaped[np.ndarray, "b ..."]:
    """Fills a batch up with copies of its first example, so that batches of one size need one compilation."""
    if len(part) == batch_size:
        return part
    return np.concatenate([part, np.repeat(part[:1], batch_size - len(part), axis=0)])


def compiled(module: nnx.Module, before: Forward = lambda x: x) -> Forward:
    """Compiles the forward pass of a plain module; its weights are arguments, not constants, of the program.

    Args:
        module: The module.
        before: Makes its input of what the function is given; compiled with it.
    """
    graph, state = nnx.split(module)
    leaves, tree = jax.tree.flatten(state)  # a list is passed sooner than a tree of Flax's objects
    run = jax.jit(lambda leaves, x: nnx.merge(graph, jax.tree.unflatten(tree, leaves))(before(x)))
    return lambda x: run(leaves, x)


def load_subnet(directory: str | os.PathLike[str], size: int | str | None = None) -> Subnet:
    """Loads an exported subnet, after checking what is read against its hashes.

    Args:
        directory: `RUN/subnets/NAME`, or `RUN/nested/NAME`.
        size: Most bytes of weights to read of a nested export, such as `"1.5MB"`; all when None.

    Raises:
        UserError: The directory is missing, incomplete or altered, its family is not known here, or the size is less
            than its smallest network has, or it is no nested export and a size is given.
    """
    from supernet.export.nested import NESTED, parse_size, read_nested

    where = Path(directory)
    if (where / NESTED).is_file():
        return read_subnet(where, read_nested(where, None if size is None else parse_size(size)))
    if size is not None and where.is_dir():
        raise UserError(
            f"size: {where} is no nested export, and is read whole. Leave it out, or write one: supernest export RUN "
            "--format nested"
        )
    verify_manifest(where, _REMEDY)
    return read_subnet(where)


def read_subnet(directory: Path, arrays: Mapping[str, Shaped[np.ndarray, "..."]] | None = None) -> Subnet:
    """Loads a subnet from a directory whose files are known to be right.

    Args:
        directory: The directory.
        arrays: Its weights by dotted name, where they are read already.
    """
    config = _read_json(directory / CONFIG)
    architecture = _read_json(directory / ARCHITECTURE)
    try:
        family, arguments = config["family"], config["module"]
        task = TASKS[config["task"]]
        preprocessing, outputs = task.read_input(config), task.read_outputs(config)
        description = architecture["architecture"]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{directory}: {error} is missing from {CONFIG} or {ARCHITECTURE}. {_REMEDY}") from None
    derived = isinstance(arguments, dict) and arguments.keys() == DERIVED
    known = family in (FAMILIES if derived else MODULES)
    program = next((path for path in (directory / PROGRAM, directory / OLD_PROGRAM) if path.is_file()), None)
    if not known and "plugin" in config and program is not None:
        given = _arrays(directory) if arrays is None else arrays
        weights = unflatten({name: jnp.asarray(leaf) for name, leaf in given.items()})
        return Subnet(config, description, None, weights, preprocessing, outputs, _program(program))
    if not known:
        raise UserError(
            f"{directory / CONFIG}: family {family!r} is not known here. Import the plug-in that defines it first; on "
            "the command line, name it with --plugin FILE."
        )
    try:
        module = nnx.eval_shape(lambda: _built(family, arguments, derived))
    except Exception as error:  # whatever a family's module makes of other arguments than its own
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{directory / CONFIG}: module: makes no network of family {family} ({said}). {_REMEDY}"
        ) from error
    flat = _arrays(directory) if arrays is None else arrays
    expected = {name: leaf.shape for name, leaf in flatten(nnx.to_pure_dict(nnx.state(module))).items()}
    found = {name: leaf.shape for name, leaf in flat.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise UserError(
                f"{directory / WEIGHTS}: {name}: shape {found.get(name)}, expected {expected.get(name)}. {_REMEDY}"
            )
    weights = unflatten({name: jnp.asarray(leaf) for name, leaf in flat.items()})
    nnx.update(module, weights)
    return Subnet(config, description, module, weights, preprocessing, outputs)


def _built(family: str, arguments: Mapping[str, Any], derived: bool) -> nnx.Module:
    if derived:
        from supernet.engine.derived import rebuilt  # other networks run without the code of supernets

        return rebuilt(family, **arguments)
    return MODULES[family](**arguments, rngs=FreshWeights(0))


def _program(path: Path) -> jax.export.Exported:
    try:
        return jax.export.deserialize(bytearray(path.read_bytes()))
    except Exception as error:  # whatever JAX makes of what another version has written
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path}: cannot be read by JAX {jax.__version__} ({said}). Import the plug-in that defines the family "
            "(--plugin FILE), or export the network again."
        ) from None


def flatten(tree: Mapping[Any, Any]) -> dict[str, Any]:
    """Returns a nested dict as one level of dotted names."""
    return {".".join(map(str, path)): leaf for path, leaf in traverse_util.flatten_dict(tree).items()}


def unflatten(flat: Mapping[str, Any]) -> dict[Any, Any]:
    """Returns the inverse of `flatten`; names of digits become integers, as Flax numbers the members of a list."""
    paths = {tuple(int(part) if part.isdigit() else part for part in name.split(".")): name for name in flat}
    return traverse_util.unflatten_dict({path: flat[name] for path, name in paths.items()})


def _arrays(directory: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(directory / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{directory / WEIGHTS}: cannot be read ({error}). {_REMEDY}") from None


def _read_json(path: Path) -> JsonObject:
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}). {_REMEDY}") from None
