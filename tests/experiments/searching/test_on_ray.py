"""Scores from a pool: put together in their order, from as many threads as there are batches in flight."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments.searching import on_ray as candidates
from search_spaces import build_space
from supernet.training.evaluation import Scores

SPACE = build_space("vit", "small")


class HerePool:
    """Does its jobs in this thread; a score is the sum of the genes, times the share."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(self, function: Any, arguments: Any) -> list[Scores]:
        assert all(len({SPACE.program(row) for row in genes}) == 1 for genes, _ in arguments)
        return [Scores(genes.sum(axis=1) * share, -genes.sum(axis=1) * share) for genes, share in arguments]


@pytest.mark.parametrize("left", [0, 1, 3])
def test_threads_share_one_pool_and_scores_keep_their_order(left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, alive = [], []

    @contextmanager
    def slow_pool(*_: Any):
        time.sleep(0.05)
        begun.append(1)
        thread = threading.current_thread()
        yield HerePool(left)
        alive.append(thread.is_alive())

    monkeypatch.setattr(candidates, "pool", slow_pool)

    class Experiment:
        space = SPACE

        class config:
            ray = "any"

    batches = [SPACE.sample(np.random.default_rng(seed), 17) for seed in range(4)]
    experiment: Any = Experiment()
    run: Any = SimpleNamespace(path=None)
    params: Any = None
    with candidates.scoring(experiment, run, params) as scores, ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda genes: scores(genes, 0.5), batches))
    assert begun == [1]
    assert alive == [True]  # Linux kills what Ray has started when the thread that did it ends
    for genes, of in zip(batches, found, strict=True):
        np.testing.assert_array_equal(of.figure, genes.sum(axis=1) / 2)
        np.testing.assert_array_equal(of.loss, -genes.sum(axis=1) / 2)
