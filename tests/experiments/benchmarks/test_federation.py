"""The benchmark of federations in small: a run counts what its rounds sent, and every variant is an experiment."""

import json

import pytest
from click.testing import CliRunner

from experiments.benchmarks import federation
from experiments.configuration.experiment_config import load_config

SMALL = (
    "space.width=[8]", "space.depth=[1]", "space.heads=[1]", "space.mlp_ratio=[1.0]", "space.head_dim=8",
    "data.train_limit=200", "federation.rounds=2", "federation.local_steps=1", "federation.clients={full: {number: 4}}",
    "federation.server.examples=20",
)  # fmt: skip


@pytest.mark.parametrize("name", federation.VARIANTS)
def test_every_variant_differs_from_the_others_in_a_setting_of_the_federation(name: str) -> None:
    own = load_config(federation._DIGITS, federation.VARIANTS[name])
    others = [load_config(federation._DIGITS, of) for other, of in federation.VARIANTS.items() if other != name]
    assert own.federation is not None
    assert all(own.federation != other.federation for other in others)
    assert all(own.model_copy(update={"federation": None}) == o.model_copy(update={"federation": None}) for o in others)


def test_figures_are_of_the_last_round_and_bytes_of_all() -> None:
    options = [part for setting in SMALL for part in ("--set", setting)]
    result = CliRunner().invoke(
        federation.main,
        ["--seeds", "2", "--variants", "prefix,clients_ucb", "--json", *options],
        catch_exceptions=False,
    )
    found = json.loads(result.stdout)
    assert found["prefix"]["asked"] == [[2, 2, 2, 2]] * 2
    assert [sum(asked) for asked in found["clients_ucb"]["asked"]] == [6, 6]
    assert found["prefix"]["bytes_up"][0] * 6 == found["clients_ucb"]["bytes_up"][0] * 8
    assert found["prefix"]["mean_mean"] == pytest.approx(sum(found["prefix"]["mean"]) / 2, abs=1e-4)
    unknown = CliRunner().invoke(federation.main, ["--variants", "prefix,fedavg"])
    assert unknown.exit_code == 2
    assert "fedavg: unknown" in unknown.output
