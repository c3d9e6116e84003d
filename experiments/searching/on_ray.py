"""Evaluation of candidates by a pool: batched by compiled program, dealt out in parts, put together in their order."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np

from experiments.distributed.pool import Pool, Resident, pool
from experiments.experiment import Experiment
from experiments.run_directory import RunDirectory
from search_spaces import Genes, SearchSpace
from supernet.engine.supernet import Params
from supernet.training.evaluation import Scores

ScoreGenes = Callable[..., Scores]
"""Scores of genes, on the whole validation split or, as a second argument, on a share of it."""

_PARTS = 16  # for each worker, so that none has long to wait for the others at the end of a batch


@contextmanager
def scoring(experiment: Experiment, run: RunDirectory, params: Params) -> Iterator[ScoreGenes]:
    """Returns what scores candidates: in this process, or on the workers of the section `ray`, from the first call on.

    A candidate's scores do not depend on which others it is evaluated with, so they are the same either way.

    Raises:
        UserError: Ray, or its cluster, cannot do it; also from the calls.
    """
    if experiment.config.ray is None:
        yield partial(experiment.scorer, params)
        return
    with ExitStack() as stack:
        workers: list[Pool] = []
        # Several batches may be in flight, each in a thread that may end before the pool. Linux then kills what Ray
        # started in it, but not what that had started; so there a thread starts Ray that lives as long as the pool.
        first, home = threading.Lock(), stack.enter_context(ThreadPoolExecutor(1))

        failed: list[BaseException] = []

        def begin() -> None:
            try:
                workers.append(stack.enter_context(pool(experiment, run.path, params)))
            except BaseException as error:
                failed.append(error)  # for the other batches, which need not wait for it again
                raise

        def scores(genes: Genes, fraction: float = 1.0) -> Scores:
            with first:
                if failed:
                    raise failed[0]
                if not workers and threading.current_thread() is threading.main_thread():
                    begin()
                elif not workers:
                    home.submit(begin).result()
            return _scores(workers[0], experiment.space, genes, fraction)

        yield scores


def _scores(workers: Pool, space: SearchSpace, genes: Genes, fraction: float) -> Scores:
    parts = list(_parts(space, genes, _PARTS * max(workers.workers, 1)))
    # The most expensive first, so that nobody begins with one when the others are about to finish.
    macs = space.cost(genes)["macs"]
    parts.sort(key=lambda rows: -macs[rows].sum())
    found = workers.run(_evaluate, [(genes[rows], fraction) for rows in parts])
    figure, loss = np.zeros(len(genes)), np.zeros(len(genes))
    for rows, scores in zip(parts, found, strict=True):
        figure[rows], loss[rows] = scores
    return Scores(figure, loss)


def _parts(space: SearchSpace, genes: Genes, count: int) -> Iterator[np.ndarray]:
    """Rows of genes, each part of one program, about `count` parts in all."""
    programs: dict[Any, list[int]] = {}
    for row, one in enumerate(genes):
        programs.setdefault(space.program(one), []).append(row)
    most = max(1, -(-len(genes) // count))
    for rows in programs.values():
        yield from np.array_split(rows, -(-len(rows) // most))


def _evaluate(resident: Resident, genes: Genes, fraction: float) -> Scores:
    return resident.experiment.scorer(resident.params, genes, fraction)
