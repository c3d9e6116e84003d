"""Who has which examples, which clients a round asks, and which layers they send."""

import numpy as np
import pytest

from experiments.configuration.federation_section import ClientChoiceSection, LayerChoiceSection
from experiments.federation.choice import Rewards, asked_clients, sent_layers
from experiments.federation.shards import shards
from search_spaces import UserError

CLASSES = np.repeat(np.arange(4), [40, 30, 20, 10])


@pytest.mark.parametrize("concentration", [0.2, 1.0, 1000.0])
def test_shards_part_the_examples(concentration: float) -> None:
    found = shards(CLASSES, 16, 5, concentration, seed=3)
    assert len(found.server) == 16
    assert len(found.clients) == 5
    np.testing.assert_array_equal(np.sort(np.concatenate([found.server, *found.clients])), np.arange(100))
    again = shards(CLASSES, 16, 5, concentration, seed=3)
    for one, other in zip(found.clients, again.clients, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(shards(CLASSES, 16, 5, concentration, seed=4).server, found.server)


def test_the_concentration_decides_how_alike_clients_are() -> None:
    def spread(concentration: float) -> float:
        dealt = shards(np.repeat(np.arange(4), 500), 1, 4, concentration, seed=0).clients
        shares = np.array([np.bincount(np.repeat(np.arange(4), 500)[rows], minlength=4) / len(rows) for rows in dealt])
        return float(shares.std(axis=0).mean())

    assert spread(1000.0) < 0.05 < 0.2 < spread(0.1)


def test_a_client_without_examples_is_refused() -> None:
    with pytest.raises(UserError, match=r"^federation.concentration: 0.001 leaves some of the 40 clients"):
        shards(CLASSES, 10, 40, 0.001, seed=0)


def test_bounds_are_those_of_ucb1() -> None:
    rewards = Rewards.none(3).after(np.array([0, 1]), np.array([0.5, 0.1])).after(np.array([0]), np.array([0.2]))
    np.testing.assert_array_equal(rewards.asked, [2, 1, 0])
    bonus = [np.sqrt(2 * np.log(3) / 2), np.sqrt(2 * np.log(3) / 1)]
    np.testing.assert_allclose(rewards.bounds(0.7), [0.35 + 0.7 * bonus[0], 0.1 + 0.7 * bonus[1], np.inf])


def test_the_bandit_asks_those_with_the_highest_bounds() -> None:
    choice = ClientChoiceSection(type="ucb", number=2, exploration=0.0)
    rewards = Rewards(np.array([1, 2, 1, 4], np.int32), np.array([0.1, 0.8, 0.3, 0.4]))  # means 0.1, 0.4, 0.3, 0.1
    np.testing.assert_array_equal(asked_clients(choice, rewards, 4, 0, 9), [1, 2])
    curious = choice.model_copy(update={"exploration": 100.0})  # the bonus alone counts: who was asked least
    np.testing.assert_array_equal(asked_clients(curious, rewards, 4, 0, 9), [0, 2])
    never = Rewards(np.array([5, 0, 5, 0], np.int32), np.array([5.0, 0, 5.0, 0]))
    np.testing.assert_array_equal(asked_clients(choice, never, 4, 0, 9), [1, 3])


def test_uniform_choice_asks_every_client_as_often() -> None:
    choice = ClientChoiceSection(type="uniform", number=2)
    rounds = [asked_clients(choice, Rewards.none(5), 5, 1, number) for number in range(500)]
    assert all(len(set(asked.tolist())) == 2 for asked in rounds)
    counts = np.bincount(np.concatenate(rounds), minlength=5)
    assert (np.abs(counts - 200) < 50).all()
    np.testing.assert_array_equal(asked_clients(ClientChoiceSection(), Rewards.none(5), 5, 1, 0), np.arange(5))


def test_layers_are_chosen_by_importance_among_those_of_the_client() -> None:
    choice = LayerChoiceSection(type="importance", number=2)
    importance = np.array([0.1, 0.5, 0.3, 0.9])
    np.testing.assert_array_equal(sent_layers(choice, importance, 4, 0, 0), [False, True, False, True])
    np.testing.assert_array_equal(sent_layers(choice, importance, 3, 0, 0), [False, True, True])
    np.testing.assert_array_equal(sent_layers(choice, importance, 1, 0, 0), [True])
    uniform = LayerChoiceSection(type="uniform", number=1)
    drawn = np.array([sent_layers(uniform, importance, 3, 0, number) for number in range(300)])
    assert (drawn.sum(axis=1) == 1).all()
    assert (np.abs(drawn.sum(axis=0) - 100) < 40).all()
    assert sent_layers(LayerChoiceSection(), importance, 4, 0, 0).all()
