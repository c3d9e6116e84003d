"""BLEU of candidates against that of the networks cut out for them, and what is refused before anything runs."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configuration.experiment_config import ExperimentConfig
from experiments.data.pairs import ParallelText
from experiments.experiment import build_experiment
from experiments.metrics import METRICS, bleu
from experiments.objective import OBJECTIVES
from experiments.ranking.training import _key
from search_spaces import UserError, build_space
from supernet.engine.supernet import build_supernet
from supernet.export.translate import translate
from supernet.training.evaluation import Scores
from tests.experiments.parallel_text import write_pairs
from tests.supernet.families import SETTINGS

pytest.importorskip("sacrebleu", reason="needs the extra `text`")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory):
    corpus = write_pairs(tmp_path_factory.mktemp("bleu") / "corpus", others=6)
    return ParallelText(str(corpus), vocabulary=280, widths=2).load(0, 0.1)


@pytest.fixture(scope="module")
def scorer(data):
    sizes = {"vocabulary": data.vocabulary, "length": data.length, "pad": data.train.pad}
    net = build_supernet(build_space("translation", "small", {**SETTINGS["translation"], **sizes}))
    return METRICS["bleu"].scorer(net, data.validation, 5)


def test_candidates_translate_as_the_networks_cut_out_for_them(data, scorer):
    net, split = scorer._net, data.validation
    params = jax.tree.map(lambda leaf: leaf * 1.5, net.init(jax.random.key(1)))
    genes = np.concatenate([net.space.sample(np.random.default_rng(0), 2), [net.space.largest.genes]]).astype(np.int32)
    rows = np.arange(3)
    said = [scorer._tokens(params, row, rows) for row in genes]
    for row, found in zip(genes, said, strict=True):
        model, _ = net.extract(params, net.space.architecture(row))
        for one, index in zip(found, rows, strict=True):
            source = split.source.row(split.rows[index])
            most = next(width for width in split.widths if width >= min(len(source) * 3 // 2 + 1, split.widths[-1]))
            x = split.sources(np.array([index]), most)
            tokens = np.asarray(translate(model, jnp.asarray(x), split.end, most, 1, 0.0).tokens).tolist()[0]
            assert one == (tokens[: tokens.index(split.end)] if split.end in tokens else tokens)
    assert len({str(one) for one in said}) > 1


def test_scores_are_those_of_sacrebleu_and_a_part_is_the_first_examples(data, scorer, monkeypatch):
    net, split, rows = scorer._net, data.validation, scorer._rows
    assert len(rows) == 5
    monkeypatch.setattr(
        scorer, "_tokens", lambda params, genes, rows: split.subwords.encode(split.take(rows).references)
    )
    genes = np.array([net.space.smallest.genes], np.int32)
    scores = scorer({}, genes)
    assert isinstance(scores, Scores)
    expected = bleu.bleu(split.take(rows).references, split.take(rows).references, "x").score
    assert (scores.figure[0], scores.loss[0]) == (expected, 100 - expected)
    assert expected > 50
    asked = []
    monkeypatch.setattr(scorer, "_tokens", lambda params, genes, rows: asked.append(rows))
    assert scorer({}, genes, 0.5).failed[0]
    np.testing.assert_array_equal(asked[0], rows[:3])


def test_broken_weights_have_failed(scorer):
    net = scorer._net
    params = jax.tree.map(lambda leaf: leaf * np.nan, net.init(jax.random.key(0)))
    assert scorer(params, np.array([net.space.smallest.genes], np.int32)).failed.all()


def config(corpus: Path, **sections):
    return ExperimentConfig.model_validate(
        {"data": {"source": "pairs", "path": str(corpus), "vocabulary": 280},
         "space": {"family": "translation", "preset": "small"}, "train": {"steps": 2}, **sections}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"search": {"objective": "bleu"}}, "search.objective"),
        ({"evaluation": {"metrics": ("bleu",)}}, "evaluation.metrics"),
    ],
)  # fmt: skip
def test_a_missing_library_and_other_data_are_refused_before_anything_runs(tmp_path, monkeypatch, sections, said):
    given = config(write_pairs(tmp_path / "corpus"), **sections)
    experiment = build_experiment(given)
    assert [metric.name for metric in experiment.metrics] == ["bleu"]
    digits = {"data": {"source": "digits"}, "space": {"family": "vit", "preset": "small"}}
    other = ExperimentConfig.model_validate({**digits, "train": {"steps": 2}, **sections})
    with pytest.raises(UserError, match=rf"^{said}: bleu is a figure of pairs, and the data are images. Leave it out"):
        build_experiment(other)
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(
        UserError, match=rf"^{said}: BLEU needs the library `sacrebleu`.* pip install 'supernest\[text\]'"
    ):
        build_experiment(given, experiment.data)


def test_a_metric_without_an_objective_is_no_objective_of_a_search(tmp_path, monkeypatch):
    monkeypatch.delitem(OBJECTIVES, "bleu_error")
    with pytest.raises(UserError, match=r"^search\.objective: bleu says of exported networks alone what they reach\."):
        build_experiment(config(write_pairs(tmp_path / "corpus"), search={"objective": "bleu"}))


def test_halving_cuts_the_examples_of_the_metric(tmp_path):
    search = {"objective": "bleu", "objective_examples": 3, "halving": [[0.5, 0.5]]}
    experiment = build_experiment(config(write_pairs(tmp_path / "corpus"), search=search))
    assert experiment.searcher.halving == ((2 / 3, 0.5),)
    with pytest.raises(ValueError, match=r"objective_examples: has no effect without search\.objective"):
        config(tmp_path, search={"objective_examples": 3})


def test_a_panel_trained_alone_does_not_depend_on_metrics(tmp_path):
    corpus = write_pairs(tmp_path / "corpus")
    plain, asked = (
        build_experiment(config(corpus, **sections)) for sections in ({}, {"evaluation": {"metrics": ("bleu",)}})
    )
    genes = np.array(plain.space.largest.genes, np.int32)
    assert _key(plain, genes, 0) == _key(asked, genes, 0)


def test_an_unknown_metric_is_named(tmp_path):
    with pytest.raises(UserError, match=r"search\.objective: metric: 'blue' is not known\. Did you mean 'bleu'"):
        build_experiment(config(write_pairs(tmp_path / "corpus"), search={"objective": "blue"}))


def test_metrics_are_registered_under_their_names():
    assert {name: metric.name for name, metric in METRICS.items()} == {name: name for name in METRICS}
