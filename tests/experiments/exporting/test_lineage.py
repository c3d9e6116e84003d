"""Lineage of a mean of networks."""

from experiments.exporting.lineage import Lineage, TrainedOn


def test_the_lineage_of_a_mean_has_the_common_training_last() -> None:
    one, two, last = (TrainedOn(data, "s") for data in ("one", "two", "last"))

    def mean(*trained: tuple[TrainedOn, ...]) -> tuple[TrainedOn, ...]:
        return Lineage.of_mean([Lineage({"weights": "w"}, each) for each in trained]).trained_on

    assert mean((last, one, last)) == (last, one, last)
    assert mean((last,), (one, last)) == (one, last)
    assert mean((last, one, last), (two, one, last)) == (one, two, last)
