"""Early stopping of finetunings: what cannot win stops, what may goes on to the same bits, and both are said."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import supernest as sn
from experiments.configuration.experiment_config import load_config
from experiments.finetuning.early_stopping import Rival, best_of
from experiments.finetuning.settings import Finetuning
from experiments.finetuning.stage import finetune, report_lines, savings_line
from experiments.finetuning.variants import finetune_variants, read_variants
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.records import FinetunedNetwork, Interval, SplitGain, StoppedFinetuning

SECTIONS: dict[str, Any] = {
    "name": "early",
    "data": {"train_limit": 200},
    "space": {"family": "vit", "preset": "small", "depth": [1], "width": [8], "heads": [1], "mlp_ratio": [1.0, 2.0]},
    "train": {
        "steps": 4, "batch_size": 16, "optimizer": {"learning_rate": 0.01, "warmup_steps": 1},
        "checkpoint_every": 4, "evaluate_every": 4, "diagnose_every": None,
    },
    "search": {"type": "random", "evaluations": 2},
    "budgets": {"small": "macs<=100%"},
    "export": {"stablehlo": False},
}  # fmt: skip
RULE = ("train.checkpoint_every=2", "finetune.early_stopping={evaluations: 6, tolerance: 0.999}")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("early")
    sn.Experiment(**SECTIONS).run(directory / "run", progress=False)
    return directory


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    return home


def settings(out: str, *changes: str) -> Finetuning:
    config = load_config("run/config.yaml", changes)
    return Finetuning(Path("run/subnets/small"), Path(out), config, "config", steps=12, learning_rate=0.005)


def weights(out: str) -> bytes:
    return Path(out, "weights.safetensors").read_bytes()


def test_what_promises_no_gain_stops_and_is_exported_as_it_is(here: Path) -> None:
    found = finetune(settings("early", *RULE), StopRequest(), quiet=True)
    assert (found.steps, found.planned_steps) == (6, 12)  # after the third of six evaluations
    assert found.stopped is not None
    assert found.stopped.rival is None
    # What it had is what the export reaches: weights of that step, not a forecast.
    assert found.validation.after.value == pytest.approx(found.stopped.to_beat, abs=1e-9)
    forecast = found.stopped.forecast
    assert forecast.low is not None
    assert forecast.high is not None
    assert forecast.low <= forecast.value <= forecast.high
    assert FinetunedNetwork.from_json(json.loads(json.dumps(found.as_json()))) == found
    assert finetune(settings("early", *RULE), StopRequest(), quiet=True) == found  # it is there already


def test_of_the_best_checkpoint_the_best_evaluation_is_what_more_steps_must_beat(here: Path) -> None:
    """At a rate that is too high, the last evaluation is not the best one; checkpoints are as frequent as these."""
    rule = RULE[1:]  # with the interval of checkpoints of the supernet, which is another
    found = {}
    for kept in ("last", "best"):
        given = dataclasses.replace(settings(f"keeps_{kept}", *rule, f"train.checkpoint={kept}"), learning_rate=0.1)
        found[kept] = finetune(given, StopRequest(), quiet=True)
    last, best = found["last"], found["best"]
    assert last.stopped is not None
    assert best.stopped is not None
    assert (last.steps, best.steps) == (6, 6)
    assert best.stopped.to_beat > last.stopped.to_beat
    for one in (last.stopped.to_beat, last), (best.stopped.to_beat, best):
        assert one[1].validation.after.value == pytest.approx(one[0], abs=1e-9)
    assert weights("keeps_best") != weights("keeps_last")


def test_what_promises_more_trains_to_the_end_as_without_a_rule(here: Path) -> None:
    strict = "finetune.early_stopping={evaluations: 6, tolerance: 1.0e-9, confidence: 0.999999}"
    finetune(settings("without", "train.checkpoint_every=2"), StopRequest(), quiet=True)
    found = finetune(settings("strict", "train.checkpoint_every=2", strict), StopRequest(), quiet=True)
    assert (found.steps, found.stopped) == (12, None)
    assert "stopped" not in found.as_json()
    assert weights("strict") == weights("without")


def test_an_interrupted_one_stops_at_the_same_bits(here: Path) -> None:
    whole = finetune(settings("undisturbed", *RULE), StopRequest(), quiet=True)

    class Later(StopRequest):
        """Asked for after the second evaluation."""

        def __bool__(self) -> bool:
            return any(len(json.loads(path.read_text())["points"]) == 2 for path in here.glob(".parts.*/curve_*.json"))

    with pytest.raises(Interrupted):
        finetune(settings("parts", *RULE), Later(), quiet=True)
    parts = finetune(settings("parts", *RULE), StopRequest(), quiet=True)
    assert dataclasses.replace(parts, identity=whole.identity) == whole
    assert weights("parts") == weights("undisturbed")
    assert not list(here.glob(".parts*"))


def test_a_variant_that_cannot_beat_an_earlier_one_stops_and_names_it(here: Path) -> None:
    rule = "finetune.early_stopping={evaluations: 6, tolerance: 0.3}"
    found = finetune(settings("late", rule), StopRequest(), quiet=True, rival=Rival("first", 0.999))
    assert found.stopped is not None
    assert (found.stopped.rival, found.stopped.to_beat) == ("first", 0.999)
    (line,) = [line for line in report_lines(found, Path("late")) if line.startswith("stopped after")]
    assert line.startswith("stopped after 6 of 12 steps: validation accuracy forecast ")
    assert line.endswith("and first had 99.90%")


def test_variants_must_beat_the_best_before_them(here: Path, supernest: Any) -> None:
    entries = [{"name": "one"}, {"name": "two", "seed": 1}]
    (here / "list.yaml").write_text(yaml.safe_dump(entries))
    sets = [part for change in RULE for part in ("--set", change)]
    code, out, err = supernest(
        "finetune",
        "run/subnets/small",
        "--variants",
        "list.yaml",
        "--out",
        "several",
        "--steps",
        "12",
        "--quiet",
        *sets,
    )
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "early stopping: 2 of 2 finetunings; 50% of the training steps were done"
    # The same command finds both, though the second was stopped against the first.
    listed = read_variants(here / "list.yaml", dataclasses.replace(settings("several", *RULE), learning_rate=None))
    again = finetune_variants(listed, StopRequest(), quiet=True)
    assert [one.steps for one in again] == [6, 6]


def test_the_best_before_is_the_first_of_the_best() -> None:
    def reached(value: float) -> FinetunedNetwork:
        gain = SplitGain(Interval(0.5), Interval(value), Interval(value - 0.5))
        return FinetunedNetwork("", "", "error", 4, 0.1, None, gain, gain)

    found = {"one": reached(0.7), "two": reached(0.8), "three": reached(0.8)}
    assert best_of(found, higher=True) == Rival("two", 0.8)
    assert best_of(found, higher=False) == Rival("one", 0.7)
    assert best_of({}, higher=True) is None


def test_what_was_saved_counts_all_steps() -> None:
    gain = SplitGain(Interval(0.5), Interval(0.6), Interval(0.1))
    whole = FinetunedNetwork("", "", "error", 100, 0.1, None, gain, gain)
    early = dataclasses.replace(whole, steps=20, stopped=StoppedFinetuning(100, Interval(0.6), 0.7, "whole"))
    assert savings_line([whole]) is None
    assert savings_line([whole, early]) == "early stopping: 1 of 2 finetunings; 60% of the training steps were done"


def test_rules_that_cannot_be_are_refused(supernest: Any, here: Path) -> None:
    code, _, err = supernest(
        "finetune", "run/subnets/small", "--out", "new", "--set", "finetune.early_stopping.evaluations=3"
    )
    assert code == 2
    assert "finetune.early_stopping.evaluations" in err
    assert not (here / "new").exists()
