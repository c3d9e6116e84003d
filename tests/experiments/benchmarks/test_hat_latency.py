"""HAT's latency tables: read as published, predicted for networks that were not fitted."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from experiments.benchmarks.hat_latency import FEATURES, LATENCIES, PREDICTORS, Measured, accuracy, main, read

LAYERS = FEATURES.index("decoder_layer_num")


def table(networks: int) -> Measured:
    """Networks whose latency is a sum over the layers of the decoder."""
    rng = np.random.default_rng(0)
    features = rng.integers(1, 7, (networks, len(FEATURES))).astype(float)
    return Measured(features, 5 + features[:, LAYERS] * (2 + features @ np.linspace(0, 1, len(FEATURES))))


def write(directory: Path, rows: list[str], columns: tuple[str, ...] = (*FEATURES, *LATENCIES)) -> Path:
    place = directory / "hw_latency" / "hat"
    place.mkdir(parents=True)
    file = place / "made_up_all.csv.gz"
    file.write_bytes(gzip.compress("\n".join([",".join(columns), *rows]).encode()))
    return file


def rows(networks: int) -> list[str]:
    """Lines of a table whose decoder takes three quarters of the time."""
    made = table(networks)
    values = np.hstack([made.features, 0.25 * made.latencies[:, None], 0.75 * made.latencies[:, None]])
    return [",".join(map(repr, map(float, line))) for line in values]


def test_latency_is_the_sum_of_encoder_and_decoder(tmp_path: Path) -> None:
    found = read(write(tmp_path, rows(30)))
    np.testing.assert_array_equal(found.features, table(30).features)
    np.testing.assert_allclose(found.latencies, table(30).latencies)


def test_products_with_the_depth_predict_a_sum_over_layers_exactly() -> None:
    made = table(300)
    fitted, held_out = np.arange(100), np.arange(100, 300)
    exact = accuracy("depth", made, fitted, held_out)
    assert exact.error < 0.002
    assert exact.tau > 0.99
    assert accuracy("linear", made, fitted, held_out).tau < 0.98


@pytest.mark.parametrize("kind", PREDICTORS)
def test_predictions_do_not_depend_on_the_unit(kind: str) -> None:
    made = table(150)
    fitted, held_out = np.arange(100), np.arange(100, 150)
    seconds = made._replace(latencies=made.latencies / 1000)
    first, second = accuracy(kind, made, fitted, held_out), accuracy(kind, seconds, fitted, held_out)
    assert first.error == pytest.approx(second.error, rel=1e-3)


def test_figures_of_every_predictor_are_printed(tmp_path: Path) -> None:
    write(tmp_path, rows(60))
    told = CliRunner().invoke(main, ["--directory", str(tmp_path), "--networks", "40", "--draws", "2", "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.output)["made_up"]
    assert found.keys() == {f"{kind}_40" for kind in PREDICTORS}
    assert found["depth_40"]["tau"] > found["linear_40"]["tau"] > 0.5


def test_wrong_tables_are_refused(tmp_path: Path) -> None:
    for number, (lines, columns, said) in enumerate(
        [
            ([], (*FEATURES, LATENCIES[0]), "no column latency_mean_decoder"),
            ([",".join(["1"] * 11 + ["fast"])], (*FEATURES, *LATENCIES), "line 2: could not convert"),
            (rows(60), (*FEATURES, *LATENCIES), "--networks: made_up has 60"),
        ]
    ):
        write(tmp_path / str(number), lines, columns)
        told = CliRunner().invoke(main, ["--directory", str(tmp_path / str(number))])
        assert (told.exit_code, said in told.output) == (2, True), told.output
    empty = CliRunner().invoke(main, ["--directory", str(tmp_path)])
    assert (empty.exit_code, "no *_all.csv.gz" in empty.output) == (2, True)


def test_the_published_tables(data_dir: Path) -> None:
    """Tau of the three devices with 100 networks, as ridge regression reached it when the tables were prepared."""
    order = np.random.default_rng(0).permutation(2000)
    for name, tau in [
        ("iwslt14deen_gpu_titanxp", 0.81),
        ("wmt14ende_cpu_raspberrypi", 0.85),
        ("wmt14ende_cpu_xeon", 0.88),
    ]:
        found = read(data_dir / "hw_latency" / "hat" / f"{name}_all.csv.gz")
        assert len(found.latencies) == 2000
        assert accuracy("linear", found, order[:100], order[100:]).tau > tau - 0.02
