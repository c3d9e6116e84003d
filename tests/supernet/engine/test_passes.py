"""Passes in pieces, with little kept, and in half precision: each against the plain ones."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from search_spaces import UserError, ViTSpace, build_space
from supernet.engine.stages import Context
from supernet.engine.supernet import build_supernet
from supernet.families.language import LanguageSupernet
from supernet.layers.passes import Passes
from supernet.tasks.distillation import Distillation
from supernet.training.training import TrainStep
from supernet.training.work import Share, Work
from tests.marks import slow_but
from tests.supernet.families import BATCH, SETTINGS, Family, small

FORMS = {
    "encoder": {"causal": False, "post_norm": True, "norm": "layer", "activation": "gelu", "head_transform": True},
    "decoder": {"parallel": True, "qk_norm": True, "tied": False, "positions": "learned"},
}
# One program and one stage: it compiles for a minute otherwise.
ONE_STAGE = {
    "resolution": [6], "widths": [8], "strides": [2], "squeeze_excite": [True], "activations": ["hard_swish"],
}  # fmt: skip


@cache
def family_of(form: str, passes: Passes) -> Family:
    settings = {"width": [16], "depth": [1, 2], "kv_heads": [1, 2], "queries": [1, 2], "mlp_width": [16, 32]}
    sizes = {"head_size": 8, "vocabulary": 19, "context": 7}
    return Family(build_supernet(build_space("language", None, {**settings, **sizes, **FORMS[form]}), passes=passes))


def relative(found, expected) -> float:
    """Norm of the difference of two trees over the norm of the second."""
    return float(optax.tree.norm(jax.tree.map(jnp.subtract, found, expected)) / optax.tree.norm(expected))


# ---------------------------------------------------------------- pieces


def test_pieces_are_all_rows_of_every_share_and_follow_each_other():
    work = Work((Share(0, slice(0, 5), 0.5), Share(1, slice(0, 5), 0.5), Share(2, slice(5, 6), 1.0))).in_pieces(2)
    assert work.shares == (
        Share(0, slice(0, 2), 0.2), Share(1, slice(0, 2), 0.2), Share(0, slice(2, 5), 0.3),
        Share(1, slice(2, 5), 0.3), Share(2, slice(5, 6), 1.0),
    )  # fmt: skip
    assert work.cut
    assert Work.whole(2, 4).in_pieces(1) == Work.whole(2, 4)


@pytest.mark.parametrize(
    ("name", "kind", "settings", "pieces"),
    [
        pytest.param("language", "largest", {}, 3, marks=pytest.mark.slow),
        ("vit", "ensemble", {"gene_norms": True}, 2),
    ],
)
def test_a_step_in_pieces_is_the_step_of_the_whole_batch(name, kind, settings, pieces):
    family = small(name)
    genes = family.draw(4)[[1, 2, 3, 0]]
    targets = np.random.default_rng(0).integers(0, family.net.classes, family.direction.shape[:-1])
    weights, examples = np.array([1, 0.5, 2, 1], np.float32), np.linspace(0.5, 2, BATCH, dtype=np.float32)
    found = []
    for work in (Work.whole(4, BATCH), Work.whole(4, BATCH).in_pieces(pieces)):
        step = TrainStep(family.net, optax.sgd(1.0), Distillation(kind, 0.5), **settings)
        state = step.init(jax.tree.map(jnp.copy, family.params))
        roles = ("largest", "random", "random", "smallest")
        state, result = step(state, genes, roles, weights, family.x, jnp.asarray(targets), examples, work=work)
        found.append((jax.tree.map(jnp.subtract, state.params, family.params), result))
    (whole, expected), (parts, result) = found
    assert relative(parts, whole) < 1e-6
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), result.paths, expected.paths)


def test_teachers_logits_are_not_kept_after_the_last_pass_over_their_rows():
    language = small("language")
    step = TrainStep(language.net, optax.sgd(1.0), Distillation("largest"))
    work = Work.whole(2, BATCH).in_pieces(4)
    genes = language.draw(2)[::-1]
    sizes, logits = [], ()
    for _, result in step.gradients(
        language.params, genes, ("largest", "smallest"), np.ones(2, np.float32), language.x, language.x, work=work
    ):
        assert result.logits is not None
        logits = result.logits.shape
        sizes.append(sum(array.shape == logits and array.dtype == jnp.float32 for array in jax.live_arrays()))
    assert logits == (BATCH // 4, *language.direction.shape[1:])
    assert max(sizes[2:]) <= max(sizes[:2])


# ---------------------------------------------------------------- rematerialisation


def other_passes(name: str, passes: Passes) -> Family:
    """A small family, or form of language models, with passes computed so."""
    if name in FORMS:
        return family_of(name, passes)
    if name == "mobilenet":
        return Family(build_supernet(build_space(name, "small", SETTINGS[name] | ONE_STAGE), passes=passes))
    return Family(build_supernet(small(name).space, passes=passes))


@pytest.mark.parametrize("name", slow_but(["decoder", "vit"], [*sorted(FORMS), "mobilenet", "vit"]))
def test_rematerialised_passes_have_the_same_gradients_and_hold_less(name):
    plain, other = other_passes(name, Passes()), other_passes(name, Passes(rematerialize=True))
    if name == "mobilenet":  # which rounds more where programs are not optimised
        plain.options = other.options = {"xla_backend_optimization_level": 3}
    for genes in plain.draw(4):
        program = plain.space.program(genes)
        for found, expected in zip(other.switched(genes, program), plain.switched(genes, program), strict=True):
            assert relative(found, expected) < 1e-6
    genes, program = plain.draw(2)[1], plain.space.program(plain.draw(2)[1])
    held = [
        family.switched.lower(genes, program).compile().memory_analysis().temp_size_in_bytes
        for family in (other, plain)
    ]
    assert held[0] < held[1]


@pytest.mark.parametrize("rows", [3, 8])
@pytest.mark.parametrize("passes", [Passes(), Passes(rematerialize=True)])
def test_what_is_kept_is_counted(rows, passes):
    vit = other_passes("vit", passes)
    space = vit.space
    assert isinstance(space, ViTSpace)
    tokens = space.tokens
    inputs = rows * tokens * space.width[-1]
    heads, hidden = space.heads[-1], space.hidden(space.width[-1], space.mlp_ratio[-1])
    attention = rows * heads * (3 * tokens * space.head_dim + tokens**2)
    numbers = space.max_depth * (2 * inputs + attention + rows * tokens * hidden)
    assert vit.net.residual_bytes(rows) == 4 * numbers
    assert vit.net.residual_bytes(rows) == 4 * numbers  # the same when it has been traced before


# ---------------------------------------------------------------- half precision


def products(jaxpr) -> list[set[str]]:
    """The types of the operands of every product of a program."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            found.append({str(variable.aval.dtype) for variable in equation.invars})
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                found += products(inner)
    return found


@pytest.mark.parametrize("form", sorted(FORMS))
def test_half_precision_multiplies_in_it_and_adds_up_in_single(form):
    plain, half = family_of(form, Passes()), family_of(form, Passes("bfloat16"))
    genes = jnp.asarray(half.draw(2)[1])
    program = half.space.program(half.draw(2)[1])
    run = jax.make_jaxpr(lambda params: half.net.apply(params, genes, half.x, program=program)[0])
    assert products(run(half.params).jaxpr)
    assert all(types == {"bfloat16"} for types in products(run(half.params).jaxpr))
    for row in plain.draw(4):
        found, expected = (family.switched(row, family.space.program(row)) for family in (half, plain))
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}
        # Each product rounds its operands by at most 2^-9; a path has about a dozen products, whose errors add up.
        assert 1e-5 < relative(found[0], expected[0]) < 12 * 2**-9
        assert 1e-5 < relative(found[1], expected[1]) < 24 * 2**-9


def test_a_token_that_occurs_often_loses_no_gradient():
    """Bfloat16 sums of ones stop at 256; the embedding's gradient is summed over 700 tokens in float32."""
    half = family_of("decoder", Passes("bfloat16"))
    net, tokens = half.net, jnp.zeros((100, 7), jnp.int32)
    assert isinstance(net, LanguageSupernet)
    gradient = jax.grad(lambda params: jnp.sum(net.embed(params, tokens, Context())))(half.params)
    np.testing.assert_array_equal(gradient["embedding"][0], 700)


def test_a_family_with_one_precision_only_says_so():
    with pytest.raises(UserError, match=r"^train\.precision: bfloat16 is not for family vit\. Leave it at float32"):
        build_supernet(build_space("vit", "small"), passes=Passes("bfloat16"))
