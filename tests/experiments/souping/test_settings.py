"""Settings of a soup: what is the same soup, and whose experiment file is taken."""

import json
from pathlib import Path

import pytest

import supernest as sn
from experiments.exporting.lineage import TrainedOn
from experiments.souping.settings import Souping, experiment_of


def test_no_tolerance_is_a_tolerance_of_0() -> None:
    config, data = (
        sn.Experiment(space={"family": "vit", "preset": "small"}, train={"steps": 1}).config,
        TrainedOn("d", "s"),
    )

    def identity(tolerance: float | None) -> str:
        return Souping((Path("a"),), Path("b"), config, "e", tolerance=tolerance).identity(["c"], data)

    assert identity(None) == identity(0) == identity(0.0)
    assert identity(1) == identity(1.0) != identity(0)


def test_plug_ins_of_a_run_that_only_a_report_names_are_not_imported(tmp_path: Path) -> None:
    run, stray = tmp_path / "run", tmp_path / "elsewhere" / "stray" / "network"
    for directory in (run / "subnets" / "full", stray):
        directory.mkdir(parents=True)
    (run / "config.yaml").write_text("plugins: []")
    (run / "run.json").write_text("{}")
    (stray / "report.json").write_text(json.dumps({"finetuned": {"source": str(run / "subnets" / "full")}}))
    assert experiment_of([stray]) == run / "config.yaml"
    (run / "config.yaml").write_text("plugins: [planted]")
    assert experiment_of([run / "subnets" / "full"]) == run / "config.yaml"
    with pytest.raises(sn.UserError, match=r"the one that its report names has plug-ins, whose code would run\."):
        experiment_of([stray])
