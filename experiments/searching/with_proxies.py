"""Zero-cost proxies in a search: what it begins with, and predictors that learn from them."""

import dataclasses
import json
import time

import numpy as np
from jaxtyping import Float

from experiments.configuration.search_sections import ProxySection
from experiments.experiment import Experiment
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.process.progress import progress_bar
from experiments.records.plain import JsonObject
from experiments.run_directory import RunDirectory
from experiments.untrained import Scored, scoring_of
from search import Searcher
from search.warm_start import WarmStarted, first_generation
from search_spaces import Genes
from search_spaces.sealed_json import read_sealed, sealed
from supernet.proxies import Proxy, proxies
from supernet.storage.manifest import disk_errors_for, write_text_atomically

_WHERE = "search.proxies"


def search_proxies(experiment: Experiment, section: ProxySection) -> dict[str, Proxy]:
    """Makes the proxies that a search asks for.

    Raises:
        UserError: One needs what the networks do not have, or the family has none.
    """
    largest = np.array(experiment.space.largest.genes, np.int32)
    return proxies(section.names, scoring_of(experiment, section.batch, _WHERE), largest, f"{_WHERE}.names")


def with_proxies(experiment: Experiment, run: RunDirectory, stop: StopRequest, quiet: bool) -> Searcher:
    """Returns the experiment's searcher with the proxies that `search.proxies` gives it.

    Args:
        experiment: The experiment.
        run: Its run directory; what the search begins with is kept in `search/warm_start.json`.
        stop: Read between networks.
        quiet: No progress bar.

    Raises:
        UserError: As `search_proxies`.
        Interrupted: `stop` was requested before the scores for the warm start were there.
    """
    section, searcher = experiment.config.search.proxies, experiment.searcher
    if section is None:
        return searcher
    made = search_proxies(experiment, section)
    searcher = _learning(searcher, made)
    if section.warm_start is None:
        return searcher
    origin = {"proxies": list(section.names), "candidates": section.warm_start, "batch": section.batch}
    first = _first(experiment, made, section.warm_start, origin, run, stop, quiet)
    return WarmStarted.of(searcher, first, origin)


def learning_from_proxies(experiment: Experiment, searcher: Searcher) -> Searcher:
    """Returns a searcher whose predictors may learn from the experiment's proxies; without a warm start.

    Args:
        experiment: The experiment.
        searcher: What its section `search` builds, for whatever budgets.

    Raises:
        UserError: As `search_proxies`.
    """
    section = experiment.config.search.proxies
    return searcher if section is None else _learning(searcher, search_proxies(experiment, section))


def _learning(searcher: Searcher, made: dict[str, Proxy]) -> Searcher:
    if any(field.name == "scored" for field in dataclasses.fields(searcher)):
        return dataclasses.replace(searcher, scored=Scored(made).fit)
    return searcher


def _first(
    experiment: Experiment, made: dict[str, Proxy], candidates: int, origin: JsonObject, run: RunDirectory,
    stop: StopRequest, quiet: bool,
) -> Genes:  # fmt: skip
    """Returns the first candidates of the search: those in the file, or the best of random architectures."""
    searcher, path = experiment.searcher, run.archive.with_name("warm_start.json")
    key = {
        **origin, "seed": searcher.seed, "space": experiment.space.fingerprint,
        "searcher": [experiment.config.search.type, len(searcher.ask(searcher.init()))],
        "budgets": [[budget.name, [list(limit) for limit in budget.limits]] for budget in searcher.budgets],
    }  # fmt: skip
    try:
        kept = read_sealed(path, "Delete it; the proxies are computed again.")
        if kept["of"] == json.loads(json.dumps(key)):
            return np.array(kept["genes"], np.int32)
    except FileNotFoundError:
        pass
    began = time.perf_counter()
    with progress_bar(total=candidates, desc="warm start", unit="subnet", quiet=quiet) as bar:

        def on_network() -> None:
            if stop:
                raise Interrupted("stopped while proxies for the warm start were computed")
            bar.update()

        scored = Scored(made, on_network)

        def scores(genes: Genes) -> Float[np.ndarray, " a"]:
            return scored.places(genes)

        first = first_generation(searcher, candidates, scores)
    with disk_errors_for(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    kept = {"of": key, "genes": first.tolist(), "seconds": time.perf_counter() - began}
    write_text_atomically(path, json.dumps(sealed(kept), indent=1) + "\n")
    return first
