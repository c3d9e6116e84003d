"""`supernest export --format transformers` on networks that translate: the same function, or one line."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.data.subwords import FILE, read_subwords, train_subwords
from experiments.pretrained.formats.encoder_decoder import write_translation_model
from experiments.storage.run_files import read_run_config
from experiments.storage.run_identity import ORIGIN, run_identity
from search_spaces import build_space
from search_spaces.errors import UserError
from supernet.engine.supernet import build_supernet
from supernet.export.export import export_subnet
from supernet.export.subnet import flatten
from supernet.export.translate import translate
from supernet.standalone.translation import TranslationModel
from supernet.tasks.pairs import Pairs
from tests.experiments.parallel_text import SOURCE, TARGET
from tests.experiments.reporting.runs import begin_run

LENGTH = 12
SIZES = {
    "encoder_width": 16, "decoder_width": 16, "encoder_mlp_width": [24, 24], "encoder_heads": [4, 4],
    "decoder_mlp_width": [20], "decoder_heads": [2], "cross_heads": [2], "memories": [1],
    "query_size": 16, "length": LENGTH, "post_norm": True, "shared_embeddings": True, "largest_width": 16,
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a `tokenizer.json`."""
    pytest.importorskip("tokenizers", reason="needs the extra `text`")
    directory = tmp_path_factory.mktemp("subwords") / "tokenizer"
    directory.mkdir()
    trained = train_subwords([" ".join(SOURCE), " ".join(TARGET)], 280)
    (directory / FILE).write_bytes((trained.directory / FILE).read_bytes())
    return directory


def module_of(tokenizer: Path, **changed: Any) -> dict[str, Any]:
    subwords = read_subwords(tokenizer)
    return {**SIZES, "vocabulary": subwords.size, "pad": subwords.pad, **changed}


def drawn_model(module: dict[str, Any]) -> TranslationModel:
    """A network whose norms and biases differ from those at the start of a training."""
    model = TranslationModel(**module, rngs=nnx.Rngs(0))
    graph, state = nnx.split(model)
    leaves, tree = jax.tree.flatten(state)
    rng = np.random.default_rng(0)
    drawn = [leaf + 0.1 * rng.standard_normal(leaf.shape).astype(np.float32) for leaf in leaves]
    return nnx.merge(graph, jax.tree.unflatten(tree, drawn))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "marian"),
        ({"shared_embeddings": False}, "marian"),
        ({"post_norm": False, "largest_width": 24}, "blenderbot"),
    ],
)
def test_the_stock_model_computes_the_same(
    tokenizer: Path, tmp_path: Path, changed: dict[str, Any], expected: str
) -> None:
    transformers = pytest.importorskip("transformers", reason="reading back needs the extra `parity`")
    torch = pytest.importorskip("torch", reason="reading back needs the extra `parity`")
    module = module_of(tokenizer, **changed)
    model, subwords = drawn_model(module), read_subwords(tokenizer)
    weights = flatten(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    assert write_translation_model(module, lambda: weights, tmp_path / "out", tokenizer) == expected
    stock = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out").eval()
    text = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    given = text(["the big dog", "a </s> man", "house"], padding=True, return_tensors="pt")
    rows = [[*row, subwords.end] for row in subwords.encode(["the big dog", "a </s> man", "house"])]
    assert [row[: len(own)] for row, own in zip(given["input_ids"].tolist(), rows, strict=True)] == rows
    source = given["input_ids"].numpy()
    target = np.random.default_rng(1).integers(2, subwords.size, source.shape)
    target[:, 0] = subwords.end
    with torch.no_grad():
        theirs = stock(**given, decoder_input_ids=torch.as_tensor(target)).logits.numpy()
    graph, state = nnx.split(model)
    ours = np.asarray(jax.jit(lambda state, x: nnx.merge(graph, state)(x))(state, np.stack([source, target], axis=1)))
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-4 * np.abs(ours).max())
    stock.save_pretrained(tmp_path / "again")
    with torch.no_grad():
        saved = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "again").eval()
        same = saved(**given, decoder_input_ids=torch.as_tensor(target)).logits.numpy()
    np.testing.assert_array_equal(same, theirs)
    if module["shared_embeddings"]:
        with torch.no_grad():
            greedy = stock.generate(**given, num_beams=1)[:, 1:].numpy()
        own = np.asarray(translate(model, jnp.asarray(source), subwords.end, LENGTH - 1, beam=1).tokens)
        for found, row in zip(greedy, own, strict=True):
            count = (found != subwords.pad).sum()
            np.testing.assert_array_equal(found[:count], row[:count])
            assert (row[count:] == subwords.end).all()


@pytest.mark.parametrize(
    ("changed", "model_type", "expected"),
    [
        ({"memories": [3]}, None, "architecture.memories: [3] cannot be expressed by marian, where it is 1 in every"),
        ({"decoder_width": 12}, None, "architecture.decoder_width: 12 cannot be expressed by marian, where it is the"),
        (
            {"query_size": 8},
            None,
            "architecture.query_size: 8 cannot be expressed by marian, where it is the width, 16",
        ),
        ({"encoder_heads": [2, 4]}, None, "architecture.encoder_heads: [2, 4] cannot be expressed by marian, where it"),
        ({"encoder_mlp_width": [8, 9]}, None, "architecture.encoder_mlp_width: [8, 9] cannot be expressed by marian"),
        ({"cross_heads": [4]}, None, "architecture.decoder_heads: [2] cannot be expressed by marian, where it is the"),
        ({"largest_width": 24}, None, "architecture.encoder_width: 16 cannot be expressed by marian, where it is even"),
        ({}, "blenderbot", "architecture.post_norm: True cannot be expressed by blenderbot, where it is false"),
        ({"post_norm": False, "shared_embeddings": False}, None, "architecture.shared_embeddings: False cannot be"),
    ],
)
def test_what_no_type_can_express_names_the_choice(
    tokenizer: Path, tmp_path: Path, changed: dict[str, Any], model_type: str | None, expected: str
) -> None:
    with pytest.raises(UserError) as caught:
        write_translation_model(module_of(tokenizer, **changed), dict, tmp_path / "out", tokenizer, model_type)
    assert str(caught.value).startswith(expected)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path


def test_the_command_writes_an_exported_network(
    tokenizer: Path, tmp_path: Path, supernest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    begin_run(tmp_path / "run", "run")
    subwords = read_subwords(tokenizer)
    kept = {"vocabulary": subwords.size, "pad": subwords.pad, "length": LENGTH}
    sizes = {name: [16] for name in ("encoder_width", "decoder_width", "encoder_mlp_width", "decoder_mlp_width")}
    sizes |= {name: [2] for name in ("encoder_heads", "decoder_heads", "cross_heads")}
    more = {"encoder_depth": [1], "decoder_depth": [1], "memories": [1], "query_size": 16, "context": 6}
    space = build_space("translation", None, {**sizes, **more, **kept})
    net = build_supernet(space)
    origin = {"config": run_identity(read_run_config(tmp_path / "run"))}
    pairs = Pairs(**kept, end=subwords.end, tokenizer_sha256=subwords.sha256)
    export_subnet(
        net, net.init(jax.random.key(3)), space.largest, tmp_path / "run" / "subnets" / "plain", statistics=None,
        input_shape=(2, 6), labels=[], preprocessing=pairs, probe=np.ones((2, 2, 6), np.int32),
        measure=lambda subnet: {ORIGIN: origin}, stablehlo=False, tokenizer=[tokenizer / FILE],
    )  # fmt: skip
    command = ("export", "run", "--format", "transformers")
    for name, expected in {
        "marian": "architecture.post_norm: False cannot be expressed by marian",
        "marianne": "--model-type: 'marianne' is not supported. Did you mean 'marian'?",
    }.items():
        code, out, err = supernest(*command, "--model-type", name)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert expected in err
    code, out, err = supernest(*command, "--dtype", "float16")
    assert (code, out, err) == (0, "plain: blenderbot, run/transformers/plain\n", "")
    config = json.loads((tmp_path / "run" / "transformers" / "plain" / "config.json").read_text())
    assert (config["decoder_start_token_id"], config["torch_dtype"]) == (subwords.end, "float16")
