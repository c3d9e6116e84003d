"""A space of cells: all passes, costs and ends, where the stream is a tree of nodes and cells share their genes."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from supernet.engine.superposed import one_hot
from supernet.sharing import SHARING
from supernet.training.gene_norms import GeneNorms
from tests.supernet.cells import CELLS, OPERATIONS, WIDTH, Cells, CellSupernet
from tests.supernet.engine.test_parity import assert_close, assert_gradients_close
from tests.supernet.families import Family

SPACE = Cells()


def test_all_passes_are_one_network_and_every_weight_is_reached() -> None:
    family = Family(CellSupernet(SPACE, SHARING["entangled"](SPACE)))
    superposed = jax.jit(family.net.apply_superposed)  # type: ignore[attr-defined]
    reached = jax.tree.map(lambda leaf: np.zeros(leaf.shape, bool), family.params)
    drawn = np.concatenate([family.draw(8), np.full((1, 3), OPERATIONS.index("linear"), np.int32)])
    for i, genes in enumerate(drawn):
        logits, gradients = family.switched(genes, ())
        reached = jax.tree.map(lambda r, g: r | (np.asarray(g) != 0), reached, gradients)
        masked, masked_gradients = family.masked(genes, ())
        assert_close(masked, logits)
        assert_gradients_close(masked_gradients, gradients)
        assert_close(superposed(family.params, one_hot(SPACE, genes), family.x), logits)
        if i == 3:
            sliced, sliced_gradients = family.sliced(genes)
            assert_close(sliced, logits)
            assert_gradients_close(sliced_gradients, gradients)
        module, _ = family.net.extract(family.params, SPACE.architecture(genes))
        assert_close(module(family.x), logits)  # type: ignore[operator]
    assert all(leaf.all() for leaf in jax.tree.leaves(reached))
    norms = np.asarray(GeneNorms(family.net)(family.params))
    for column, edge in enumerate(("edge_01", "edge_02", "edge_12")):
        leaves = jax.tree.leaves(family.params["cells"][edge])
        np.testing.assert_allclose(norms[column], np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in leaves)), rtol=1e-5)


def test_costs_and_ends() -> None:
    rows = np.stack(np.unravel_index(np.arange(27), (3, 3, 3)), axis=1).astype(np.int32)
    costs, net = SPACE.cost(rows), CellSupernet(SPACE, SHARING["entangled"](SPACE))
    for i, genes in enumerate(rows):
        linear = int((genes == OPERATIONS.index("linear")).sum())
        module = nnx.eval_shape(lambda genes=genes: net.module(SPACE.architecture(genes)))
        leaves = jax.tree.leaves(nnx.to_pure_dict(nnx.state(module, nnx.Param)))
        assert costs["params"][i] == sum(leaf.size for leaf in leaves)
        assert costs["macs"][i] == 4 * 3 * WIDTH + 3 * WIDTH + CELLS * linear * 4 * WIDTH * WIDTH
    assert SPACE.size == 27
    assert set(SPACE.largest.description.values()) == {"linear"}
    assert "linear" not in SPACE.smallest.description.values()
