"""Who trains what: every row of every path once, equal shapes, an even load, and batches that do not divide."""

from math import gcd, lcm

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.training.schedule import Schedule, balance, deal
from search_spaces import UserError

counts = st.integers(1, 9)


@given(counts, counts, st.integers(1, 4), st.sampled_from(["paths", "data"]), st.sampled_from(["whole", "share"]))
def test_every_row_of_every_path_is_trained_once_in_shares_of_one_size(paths, workers, times, parallel, path_batch):
    parts = paths if path_batch == "share" else 1
    schedule = Schedule(workers, parts * workers * times, parallel, path_batch)
    schedule.check(paths)
    dealt = schedule.dealt(np.arange(paths, 0, -1.0))
    seen = np.zeros((paths, schedule.rows))
    weights = np.zeros(paths)
    for mine in dealt:
        assert [share.path for share in mine] == sorted(share.path for share in mine)
        for share in mine:
            seen[share.path, share.rows] += 1
            weights[share.path] += share.weight
    np.testing.assert_allclose(weights, 1)
    if path_batch == "whole":
        assert (seen == 1).all()
    else:  # path i has the i-th part
        np.testing.assert_array_equal(seen, np.repeat(np.eye(paths), schedule.rows // paths, axis=1))
    assert len({share.rows.stop - share.rows.start for mine in dealt for share in mine}) == 1
    assert len({len(mine) for mine in dealt}) == 1
    assert schedule.cuts(paths) == (workers if parallel == "data" else workers // gcd(paths, workers))


def test_data_parallel_workers_keep_their_rows():
    dealt = Schedule(3, 12, "data").dealt(np.array([5.0, 1.0]))
    for worker, mine in enumerate(dealt):
        rows = slice(4 * worker, 4 * worker + 4)
        assert [(share.path, share.rows) for share in mine] == [(0, rows), (1, rows)]


def test_the_most_expensive_units_come_first_and_nobody_has_more_units():
    assert deal([1, 5, 3, 4, 2, 3], 3) == [[0, 1], [3, 4], [2, 5]]
    assert deal([2, 2, 2, 2], 2) == [[0, 2], [1, 3]]
    assert deal([1.0], 3) == [[0], [], []]
    assert sorted(map(len, deal([9, 1, 1, 1, 1], 2))) == [2, 3]


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=12), counts)
def test_dealing_is_a_partition(costs, workers):
    dealt = deal(costs, workers)
    assert sorted(unit for units in dealt for unit in units) == list(range(len(costs)))
    assert max(map(len, dealt)) == -(-len(costs) // workers)


def test_balance_is_mean_over_slowest():
    costs = np.array([4.0, 2.0])
    assert balance(costs, Schedule(2, 8).dealt(costs)) == pytest.approx(0.75)
    assert balance(costs, Schedule(2, 8, "data").dealt(costs)) == 1
    assert balance(costs, Schedule(4, 8).dealt(costs)) == pytest.approx(0.75)
    assert balance(costs, Schedule(1, 8).dealt(costs)) == 1


def test_a_path_that_normalises_with_its_batch_stays_whole():
    schedule = Schedule(4, 30, divisible=False)
    schedule.check(3)
    assert [[share.rows for share in mine] for mine in schedule.dealt(np.ones(3))] == [[slice(0, 30)]] * 3 + [[]]
    with pytest.raises(UserError, match=r"^ray.parallel: 'data' cuts batches.*Set ray.parallel to paths\.$"):
        Schedule(4, 32, "data", divisible=False).check(3)


def test_the_batch_that_is_proposed_suits_other_numbers_of_workers_too():
    schedules = [Schedule(workers, 64) for workers in (2, 3, 4)]
    unit = lcm(*(schedule.unit(5) for schedule in schedules))
    with pytest.raises(UserError, match=r"64 rows do not divide into 3 equal shares for 5 paths on 3 .*Set 60\.$"):
        schedules[1].check(5, unit)
    assert not any(60 % schedule.unit(5) for schedule in schedules)


@pytest.mark.parametrize(
    ("schedule", "paths", "nearest"),
    [
        (Schedule(3, 64), 4, 63),
        (Schedule(2, 63), 3, 64),
        (Schedule(5, 2, "data"), 4, 5),
        (Schedule(1, 64, path_batch="share"), 3, 63),
        (Schedule(2, 64, path_batch="share"), 3, 66),
    ],
)
def test_a_batch_that_does_not_divide_is_refused_with_the_nearest_that_does(schedule, paths, nearest):
    with pytest.raises(UserError, match=rf"^train.batch_size: {schedule.rows} rows do not.*Set {nearest}\.$"):
        schedule.check(paths)
    Schedule(schedule.workers, nearest, schedule.parallel, schedule.path_batch).check(paths)
    # A step that happens to have so many paths all the same is trained, less evenly.
    rows = [share.rows for mine in schedule.dealt(np.ones(paths)) for share in mine]
    assert sum(one.stop - one.start for one in rows) == schedule.rows * (1 if schedule.path_batch == "share" else paths)
