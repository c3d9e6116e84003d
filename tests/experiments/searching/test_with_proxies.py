"""`search.proxies`: a warm start and predictors that learn from proxies, from the command line to the archive."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from experiments.configuration.experiment_config import load_config
from experiments.experiment import build_experiment
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.run_directory import RunDirectory
from experiments.searching.stage import search
from experiments.searching.with_proxies import with_proxies
from search import LINAS
from search.warm_start import WarmStarted

CONFIG = """\
data: {source: digits, train_limit: 200}
space: {family: vit, preset: small, width: [16], depth: [1, 2], heads: [1, 2], mlp_ratio: [1.0, 2.0], head_dim: 8}
sampler: {type: uniform}
train: {steps: 2, batch_size: 16}
search: {type: evolution, population: 4, evaluations: 8, proxies: {names: [params, l2], batch: 8, warm_start: 12}}
export: {stablehlo: false}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


def test_a_search_begins_with_the_best_by_proxies(supernest: Any, here: Path) -> None:
    assert supernest("run", "small.yaml", "--out", "out", "--quiet")[0] == 0
    kept = json.loads((here / "out" / "search" / "warm_start.json").read_text())
    lines = [json.loads(line) for line in (here / "out" / "search" / "archive.jsonl").read_text().splitlines()]
    assert lines[0]["searcher"]["warm_start"] == {"proxies": ["params", "l2"], "candidates": 12, "batch": 8}
    rows = [line["genes"] for line in lines[1:5]]
    assert rows == kept["genes"]
    # By parameters and norms the largest are best: all that are asked first have the full depth.
    space = build_experiment(load_config("small.yaml")).space
    costs = space.cost(np.array(rows, np.int32))["params"]
    assert costs.min() > np.median(space.cost(space.sample(np.random.default_rng(0), 200))["params"])
    assert kept["seconds"] > 0


def test_what_was_computed_is_kept_and_a_stop_computes_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = build_experiment(load_config("small.yaml"))
    stop = StopRequest()
    stop.asked = True
    with RunDirectory.create_or_resume("run", experiment.config) as run:
        with pytest.raises(Interrupted):
            with_proxies(experiment, run, stop, quiet=True)
        first = with_proxies(experiment, run, StopRequest(), quiet=True)
        again = with_proxies(experiment, run, stop, quiet=True)  # nothing is left that a stop could end
    assert isinstance(first, WarmStarted)
    assert again.settings == first.settings


def test_an_interrupted_search_goes_on_to_the_same_archive(here: Path) -> None:
    """Stopped among the proxies, and again after the first batch, which is what the search began with."""
    experiment = build_experiment(load_config("small.yaml"))
    params = experiment.net.init(jax.random.key(0))

    class Later(StopRequest):
        """Asked for after some looks at it."""

        def __init__(self, looks: int) -> None:
            super().__init__()
            self.looks = looks

        def __bool__(self) -> bool:
            self.looks -= 1
            return self.looks < 0

    with RunDirectory.create_or_resume("whole", experiment.config) as run:
        search(experiment, params, run, StopRequest(), quiet=True)
    with RunDirectory.create_or_resume("parts", experiment.config) as run:
        for looks in (5, 0):
            if looks == 0:
                with_proxies(experiment, run, StopRequest(), quiet=True)
            with pytest.raises(Interrupted, match="proxies" if looks else "4 of 8 candidates"):
                search(experiment, params, run, Later(looks), quiet=True)
        search(experiment, params, run, StopRequest(), quiet=True)
    whole, parts = (here / name / "search" / "archive.jsonl" for name in ("whole", "parts"))
    assert parts.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_a_whole_search_learns_with_parzc_and_so_does_its_refinement(supernest: Any, here: Path) -> None:
    change = (
        "search={type: linas, population: 6, inner: 24, evaluations: 18, predictors: [parzc], "
        "proxies: {names: [params, l2, expressivity], batch: 8}}"
    )
    sets = ("--set", change, "--set", "space.width=[16, 24]")
    assert supernest("run", "small.yaml", "--out", "out", "--quiet", *sets)[::2] == (0, "")
    lines = (here / "out" / "search" / "archive.jsonl").read_text().splitlines()
    assert len({tuple(json.loads(line)["genes"]) for line in lines[1:]}) == 18
    code, out, err = supernest("export", "out", "--budget", "macs<=80%", "--refine", "4", "--show", "--json", "--quiet")
    assert (code, err) == (0, "")
    assert json.loads(out)["evaluated"] > 18


def test_linas_learns_from_proxies(here: Path) -> None:
    changes = (
        "search={type: linas, population: 4, inner: 20, predictors: [proxy_forest], proxies: {names: [params]}}",
    )
    experiment = build_experiment(load_config("small.yaml", changes))
    with RunDirectory.create_or_resume("run", experiment.config) as run:
        searcher = with_proxies(experiment, run, StopRequest(), quiet=True)
    assert isinstance(searcher, LINAS)
    assert "scored" not in searcher.settings
    genes = np.unique(experiment.space.sample(np.random.default_rng(0), 40), axis=0)
    errors = experiment.space.cost(genes)["params"].astype(float)
    state = searcher.tell(searcher.init(), genes[:16], np.column_stack([errors[:16], errors[:16]]))
    predicted = searcher._predictor(state, 0)(genes)
    assert np.corrcoef(predicted, errors)[0, 1] > 0.8
    assert len(searcher.ask(state)) == 4


def test_what_cannot_be_is_refused_before_anything_runs(supernest: Any, here: Path) -> None:
    for change, message in (
        ("search.proxies.names=[nwot]", "search.proxies.names: nwot needs ReLUs, and these networks have none."),
        ("search.proxies.names=[parms]", "search.proxies.names: 'parms' is not known. Did you mean 'params'?"),
        ("search.proxies.names=[]", "search.proxies.names"),
        ("search.proxies.warm_start=null", "search.proxies: has no effect without a warm start"),
        ("search={type: linas, predictors: [parzc]}", "parzc learns from proxies of the networks. Name some"),
        ("search={type: linas, predictors: [parzcc]}", "'parzcc' is not known. Did you mean 'parzc'?"),
    ):
        code, _, err = supernest("run", "small.yaml", "--out", "out", "--set", change)
        assert code == 2, change
        assert message in err
        assert err.count("\n") == 1
        assert not (here / "out").exists()
