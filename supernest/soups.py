"""Model soups in Python: the weights of exported networks, or of runs, averaged."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from search_spaces.errors import UserError
from supernest.finished_run import Run
from supernest.subnet import Subnet, load_subnet


def soup(
    *inputs: str | Path,
    out: str | Path,
    method: Literal["greedy", "uniform"] = "greedy",
    tolerance: float | None = None,
    data: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Subnet | dict[str, Subnet] | Run:
    """Averages weights, as `supernest soup` does; the same call finds what is there.

    Args:
        inputs: Directories of exported networks that descend from one run, or of runs that began with the same weights.
        out: Directory of the soup, a new one.
        method: Whether all are taken (`"uniform"`), or the best and those that improve the mean.
        tolerance: Largest loss of a shape against its best network, for networks of several shapes; 0 when None.
        data: Experiment file that the networks were trained with; that of their run when None.
        settings: Settings that override that file's, by key.

    Returns:
        The network; of several shapes a network each, by name; of runs the new run.

    Raises:
        UserError: They do not go together, the method or the tolerance cannot be used, or the mean loses more than the
            tolerance; nothing is written then.
    """
    from experiments.process.interrupt import StopRequest
    from experiments.storage.run_files import is_run

    if not inputs:
        raise UserError("soup: nothing to average. Give directories of networks, or of runs.")
    paths, stop = tuple(map(Path, inputs)), StopRequest()
    if any(map(is_run, paths)):
        from experiments.souping.runs import soup_of_runs

        if data is not None or settings or tolerance is not None:
            raise UserError("soup: data, settings and tolerance are for networks. Runs have settings of their own.")
        return Run(soup_of_runs(paths, Path(out), method, stop).directory)
    from experiments.souping.settings import Souping, experiment_of
    from experiments.souping.stage import soup as run
    from supernest.experiment import Experiment

    where = experiment_of(paths) if data is None else Path(data)
    config = Experiment(where, settings=settings).config
    made = run(Souping(paths, Path(out), config, str(where), method, tolerance), stop)
    networks = {Path(one.directory).name: load_subnet(one.directory) for one in made.networks}
    return networks if made.tolerance is not None else next(iter(networks.values()))
