"""Latency of translation networks: a search under a limit by a device file, and HAT's features as predictor."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from experiments.benchmarks import hat_latency
from experiments.benchmarks.hat_latency import FEATURES, features, profiled
from experiments.devices.device_file import read_device
from search import SEARCHERS, Archive, Budget, best, run_search
from search_spaces import TranslationSpace, UserError, build_space
from tests.experiments.device_files import write_device

SIZES = {
    "encoder_width": (16, 24), "decoder_width": (16, 24), "encoder_depth": (2,), "decoder_depth": (1, 2),
    "encoder_mlp_width": (16, 32), "decoder_mlp_width": (16, 32), "query_size": 16, "vocabulary": 40, "length": 12,
    "context": 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def space() -> TranslationSpace:
    found = build_space("translation", "small", SIZES)
    assert isinstance(found, TranslationSpace)
    return found


def test_evolution_finds_the_best_network_under_a_latency_limit(space: TranslationSpace, tmp_path: Path) -> None:
    cost = read_device(write_device(tmp_path / "device.json", space)).cost(space)
    slowest, fastest = (cost(np.array([one.genes]))["latency_ms"][0] for one in (space.largest, space.smallest))
    limit = float(fastest + 0.5 * (slowest - fastest))
    budget = Budget.parse("fast", f"latency_ms<={limit}", (*space.metrics, "latency_ms")).resolve(space, cost)
    searcher = SEARCHERS["evolution"](space=space, budgets=(budget,), seed=0, cost=cost)
    archive = Archive.open(tmp_path / "archive.jsonl", searcher)

    def errors(genes: np.ndarray, fraction: float = 1.0) -> np.ndarray:
        """Slower networks are better, most of all those of deep decoders."""
        del fraction
        found = cost(genes)["latency_ms"]
        return 1 - found / slowest

    run_search(searcher, errors, archive, 300, lambda progress: None, None, errors)
    winner = best(archive, budget)
    assert winner is not None
    assert archive.costs["latency_ms"][winner] <= limit
    assert archive.costs["latency_ms"][winner] >= 0.97 * limit
    assert (archive.costs["latency_ms"] <= limit).all()


def test_features_are_widths_layers_and_averages_over_layers(space: TranslationSpace) -> None:
    genes = space.sample(np.random.default_rng(0), 30)
    found = features(space, genes)
    assert found.shape == (30, len(FEATURES))
    for row, values in zip(genes, found, strict=True):
        own, told = space.architecture(row).description, dict(zip(FEATURES, values, strict=True))
        assert told["encoder_embed_dim"] == own["encoder_width"]
        assert told["decoder_layer_num"] == own["decoder_depth"] == len(own["decoder_heads"])
        assert told["decoder_arbitrary_ende_attn_avg"] == np.mean(own["memories"])
        assert told["decoder_ende_attention_heads_avg"] == np.mean(own["cross_heads"])
        assert told["encoder_ffn_embed_dim_avg"] == np.mean(own["encoder_mlp_width"])
    assert len(np.unique(found, axis=0)) > 20


def test_measurements_of_profile_are_predicted(space: TranslationSpace, tmp_path: Path) -> None:
    genes, cost = space.sample(np.random.default_rng(1), 80), space.cost
    file = tmp_path / "device.measurements.jsonl"
    lines = [{"space": space.fingerprint}]
    lines += [
        {"genes": row.tolist(), "batch_size": size, "seconds": 1e-9 * size * float(cost(row[None])["macs"][0])}
        for row in genes
        for size in (1, 8)
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    table = profiled(file, space)
    np.testing.assert_allclose(table.latencies, 1e-6 * cost(genes)["macs"])
    order = np.random.default_rng(0).permutation(80)
    found = hat_latency.accuracy("depth", table, order[:50], order[50:])
    assert found.error < 0.02
    assert found.tau > 0.9


def test_other_files_are_refused_in_one_line(space: TranslationSpace, tmp_path: Path) -> None:
    for name, content, said in [
        ("other", '{"space": "abc"}', "measured for another search space"),
        ("none", "", "holds no measurements"),
        ("empty", json.dumps({"space": space.fingerprint}), "holds no measurements"),
    ]:
        (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match=f"{name}: {said}"):
            profiled(tmp_path / name, space)
    with pytest.raises(UserError, match="missing: No such file"):
        profiled(tmp_path / "missing", space)
    told = CliRunner().invoke(hat_latency.main, ["--measured", str(tmp_path / "none")])
    assert (told.exit_code, "needs --experiment" in told.output) == (2, True)
