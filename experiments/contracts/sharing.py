"""The contract of a sharing scheme: effective weights lie as plain ones do, and fresh ones give plain networks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from experiments.contracts import require
from search_spaces.randomness import Purpose
from supernet.engine.randomness import key
from supernet.engine.supernet import Supernet

KEY = "supernet.sharing"


def check_sharing(net: Supernet) -> None:
    """Checks the scheme of a supernet on fresh weights; that all passes agree with it is `check_family`'s.

    Args:
        net: Supernet of a small space that the scheme fits.

    Raises:
        ContractError: Something differs; the text names the weight.
    """
    sharing, of_weights = net.sharing, key(0, Purpose.WEIGHTS)
    name, plain = type(sharing).__name__, _flat(net.plain_weights(of_weights))
    params = net.init(of_weights)
    own, layout = _flat(params), {path: (leaf.shape, leaf.dtype) for path, leaf in plain.items()}
    unknown = sorted(sharing.changed - plain.keys())
    require(not unknown, KEY, f"{name}.changed names {unknown[:1]}, which is no weight. Use paths such as head/kernel.")
    choices = [choice.name for choice in net.space.choices]
    wrong = [choice for choice in sharing.choices if choice not in choices]
    require(not wrong, KEY, f"{name}.choices names {wrong[:1]}, and the choices are {choices}. Correct the name.")
    for genes in net.space.extremes:
        effective = _flat(sharing.effective(params, jnp.asarray(genes, jnp.int32)))
        for path in sorted(effective.keys() | layout.keys()):
            found = (effective[path].shape, effective[path].dtype) if path in effective else None
            require(
                found == layout.get(path),
                KEY,
                f"{name}.effective gives {path} as {_shown(found)}, expected {_shown(layout.get(path))}. Effective "
                "weights are laid out as plain ones: take out what the scheme adds, and keep all else.",
            )
            same = path in own and np.array_equal(effective[path], own[path])
            require(
                same or path in sharing.changed,
                KEY,
                f"{name}.effective changes {path}, which {name}.changed does not name. Name it there.",
            )
        architecture = net.space.architecture(genes)
        statistics = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), net.statistics_shapes)
        changed = {} if sharing.keeps_plain else {path: effective[path] for path in sharing.changed}
        cut, expected = (
            _flat(net.slice(traverse_util.unflatten_dict(tree, sep="/"), architecture, statistics))
            for tree in (effective, {**plain, **changed})
        )
        for path, leaf in expected.items():
            require(
                np.array_equal(cut[path], leaf),
                KEY,
                f"{name}.init gives fresh weights whose {path} in a subnet is not that of the plain network. Start "
                "from what leaves the plain weights as they are, or set keeps_plain = False.",
            )


def _flat(tree: Any) -> dict[str, Any]:
    flat: dict[Any, Any] = traverse_util.flatten_dict(tree)
    return {"/".join(map(str, path)): leaf for path, leaf in flat.items()}


def _shown(found: tuple | None) -> str:
    return "nothing" if found is None else f"{found[1]}{list(found[0])}"
