"""The tree of a checkpoint: named leaves, what kind each is, the copy on the host, and the way back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from search_spaces.errors import UserError
from supernet.storage.told_once import told_once

Tree = TypeVar("Tree")
_FORMAT = 1
_VALUES = (bool, int, float, str)
_REMEDY = "Restore with the configuration that wrote it, or train in a new run directory."


def to_host(tree: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Copies every array of `tree` to memory of its own on the host.

    Returns:
      The arrays by the path of their leaf (`params/head/kernel`), and a description for JSON: each leaf's kind, the
      Python values, the implementation of each PRNG key.

    Raises:
      TypeError: for a leaf that cannot be stored.
    """
    leaves = _named_leaves(tree)
    kinds = {name: _kind(name, leaf) for name, leaf in leaves.items()}
    arrays = {name: leaf for name, leaf in leaves.items() if type(leaf) not in _VALUES}
    keys = {name: str(jax.random.key_impl(leaf)) for name, leaf in arrays.items() if _is_key(leaf)}
    fetched = jax.device_get({n: jax.random.key_data(leaf) if n in keys else leaf for n, leaf in arrays.items()})
    # On the CPU `device_get` returns views of the buffers that the next training step may be given to write into.
    # Orbax refuses arrays without elements; their kind says all there is to know.
    host = {name: np.array(value, copy=True) for name, value in fetched.items() if np.size(value)}
    values = {name: leaf for name, leaf in leaves.items() if type(leaf) in _VALUES}
    return host, {"format": _FORMAT, "kinds": kinds, "keys": keys, "values": values}


def write_arrays(directory: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the arrays of `to_host` as an Orbax PyTree checkpoint; none makes no directory."""
    if arrays:
        with told_once(), _checkpointer() as orbax:
            orbax.save(directory, args=ocp.args.PyTreeSave(dict(arrays)))


def read(directory: Path, description: Mapping[str, Any], like: Tree) -> Tree:
    """Reads what `write_arrays` wrote into the structure of `like`.

    Raises:
      UserError: names the first leaf that is missing, has another shape or type, or is too many.
    """
    if description["format"] != _FORMAT:
        raise UserError(f"{directory.parent}: format {description['format']}, expected {_FORMAT}. Update supernest.")
    wanted = _named_leaves(like)
    _check_kinds(directory.parent, description["kinds"], {name: _kind(name, leaf) for name, leaf in wanted.items()})
    stored = [name for name, leaf in wanted.items() if type(leaf) not in _VALUES and 0 not in leaf.shape]
    arrays: dict[str, np.ndarray] = {}
    if stored:
        as_numpy = ocp.args.PyTreeRestore(
            item=dict.fromkeys(stored, 0),
            restore_args=dict.fromkeys(stored, ocp.RestoreArgs(restore_type=np.ndarray)),
        )
        with told_once(), _checkpointer() as orbax:
            arrays = orbax.restore(directory, args=as_numpy)
    for name, array in arrays.items():
        if not _is_key(wanted[name]) and _kind(name, array) != description["kinds"][name]:
            raise UserError(f"{directory.parent}: {name}: damaged: holds {_kind(name, array)}. {_REMEDY}")
    values, keys = description["values"], description["keys"]
    leaves = [
        values[name] if name in values else _array_like(leaf, arrays.get(name), keys.get(name))
        for name, leaf in wanted.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _array_like(leaf: Any, stored: np.ndarray | None, key_impl: str | None) -> Any:
    sharding = getattr(leaf, "sharding", None)
    if _is_key(leaf):
        width = jax.random.key_data(jax.random.key(0, impl=key_impl)).shape
        data = jnp.zeros((*leaf.shape, *width), np.uint32) if stored is None else jnp.asarray(stored)
        return jax.device_put(jax.random.wrap_key_data(data, impl=key_impl), sharding)
    stored = np.zeros(leaf.shape, leaf.dtype) if stored is None else stored
    if isinstance(leaf, np.generic):
        return stored[()]
    if isinstance(leaf, np.ndarray):
        return stored
    # A JAX array that borrows NumPy's memory could not be donated.
    return jax.device_put(stored, sharding, may_alias=False)


def _check_kinds(path: Path, held: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    for name, kind in wanted.items():
        if name not in held:
            raise UserError(f"{path}: {name}: not in this checkpoint; expected {kind}. {_REMEDY}")
        if held[name] != kind:
            raise UserError(f"{path}: {name}: the checkpoint holds {held[name]}; expected {kind}. {_REMEDY}")
    for name, kind in held.items():
        if name not in wanted:
            raise UserError(f"{path}: {name}: the checkpoint holds {kind}, which nothing here expects. {_REMEDY}")


def _checkpointer() -> ocp.Checkpointer:
    # Only this process saves, so Orbax must not wait at a barrier for the other workers of the training.
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"checkpoint_{me}"
    )
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(multiprocessing_options=alone), multiprocessing_options=alone)


def _named_leaves(tree: Any) -> dict[str, Any]:
    leaves = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in leaves:
            raise TypeError(f"checkpoint: two leaves of the tree are both called {name!r}. Rename one of the keys.")
        leaves[name] = leaf
    return leaves


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _kind(name: str, leaf: Any) -> str:
    """`float32[3,4]` for an array, `int` for a Python value: what must be equal for a leaf to be restored."""
    if type(leaf) in _VALUES:
        return type(leaf).__name__
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct | np.ndarray | np.generic):
        dtype = str(leaf.dtype) if _is_key(leaf) else np.dtype(leaf.dtype).name
        if _is_key(leaf) or (np.dtype(leaf.dtype).kind not in "OSUMm" and not dtype.startswith("void")):
            return f"{dtype}[{','.join(map(str, leaf.shape))}]"
    raise TypeError(
        f"checkpoint: {name}: cannot store {type(leaf).__name__} {leaf!r}. "
        "Expected a numeric array, a bool, an int, a float or a string."
    )
