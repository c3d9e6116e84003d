"""Data importance: the probabilities of PA&DA by hand, exact draws, exact corrections."""

import numpy as np
import pytest
from scipy.stats import chisquare

from samplers import Paths, Plan, StepFeedback
from samplers.data_importance import DataImportance, Epochs, effective_sample_size, half_averages, mixed

N = 50


def importance(batch_size: int = 8, epochs: int = 6, **settings) -> DataImportance:
    return DataImportance(Epochs(Plan(-(-epochs * N // batch_size), N, batch_size)), **settings)


def feedback(step: int, rows: np.ndarray, norms: np.ndarray) -> StepFeedback:
    """Norms of one path or of several."""
    norms = np.atleast_2d(norms)
    paths = Paths(np.zeros((len(norms), 1), np.int32), ("random",) * len(norms), np.ones(len(norms), np.float32))
    return StepFeedback(step, paths, np.zeros(len(norms)), examples=rows, example_norms=norms)


def start(data: DataImportance) -> dict:
    return {"not_finite": np.zeros((), np.int64), **data.init()}


def norms_of(step: int, rows: np.ndarray) -> np.ndarray:
    return np.abs(np.sin(1 + rows + step / 7)).astype(np.float32)


def train(data: DataImportance, steps: int, norms=norms_of) -> tuple[dict, list[np.ndarray]]:
    """The state after some steps, and the rows of each."""
    state, drawn = start(data), []
    batch = data.epochs.plan.batch_size
    for step in range(steps):
        wanted = data.draw(state, np.random.default_rng(step), step)
        rows = np.arange(step * batch, (step + 1) * batch) % N if wanted is None else wanted.rows
        drawn.append(rows)
        state = data.update(state, feedback(step, rows, norms(step, rows)))
    return state, drawn


@pytest.mark.parametrize("batch_size", [1, 7, 10, 50, 64, 120])
def test_a_step_belongs_to_the_epoch_of_its_first_example(batch_size):
    epochs = Epochs(Plan(steps=1000 // batch_size, examples=N, batch_size=batch_size))
    for step in range(epochs.plan.steps):
        assert epochs.of(step) == (step * batch_size) // N
        following = next(later for later in range(step + 1, step + N + 2) if epochs.of(later) != epochs.of(step))
        assert epochs.next_start(step) == following
        assert epochs.ends_with(step) == (following == step + 1)
        assert 0 <= epochs.importance_after(step) < 1
    assert epochs.count == epochs.of(epochs.plan.steps - 1) + 1


def test_importance_grows_linearly_from_epoch_two():
    epochs = importance(batch_size=10).epochs
    assert epochs.count == 6
    assert [epochs.importance_after(5 * epoch + 4) for epoch in range(6)] == [e / 6 for e in range(6)]


@pytest.mark.parametrize("batch_size", [1, 8, 10, 50, 64])
@pytest.mark.parametrize("carry", [False, True])
def test_probabilities_are_those_of_a_loop_over_the_definition(batch_size, carry):
    data = importance(batch_size, carry=carry)
    _, drawn = train(data, data.epochs.plan.steps)
    expected, d, old, state = np.full(N, 1 / N), {}, np.zeros(N), start(data)
    for step, rows in enumerate(drawn):
        np.testing.assert_allclose(data.probabilities(state), expected, rtol=1e-5)
        if data.epochs.of(step) < 2:
            np.testing.assert_allclose(data.probabilities(state), 1 / N, rtol=1e-12)
        for row, norm in zip(rows, norms_of(step, rows), strict=True):
            d[row] = (d[row] + norm) / 2 if row in d else norm
        state = data.update(state, feedback(step, rows, norms_of(step, rows)))
        if data.epochs.ends_with(step):
            new = np.array([d.get(row, old[row] if carry else 0.0) for row in range(N)])
            tau = (data.epochs.of(step + 1) - 1) / data.epochs.count
            expected, d, old = tau * new / new.sum() + (1 - tau) / N, {}, new
    np.testing.assert_allclose(data.probabilities(state), expected, rtol=1e-5)


def test_an_example_that_was_not_drawn_keeps_the_uniform_part_alone():
    data = importance(batch_size=10)
    state, drawn = train(data, 15)
    absent = np.setdiff1d(np.arange(N), np.concatenate(drawn[10:15]))
    assert len(absent) > 5
    np.testing.assert_allclose(data.probabilities(state)[absent], (1 - 2 / 6) / N, rtol=1e-9)


def test_carried_importance_keeps_more_examples_alive():
    def alive(carry: bool) -> float:
        data = importance(batch_size=10, epochs=40, carry=carry)
        return effective_sample_size(data.probabilities(train(data, 195)[0]))

    assert alive(True) > 1.5 * alive(False)


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
def test_draws_follow_the_probabilities_for_any_batch_size(batch_size):
    data = importance(batch_size)
    probabilities = mixed(np.arange(N) % 5.0, 0.9)
    state = {**start(data), "data_cumulative": np.cumsum(probabilities)}
    first = data.epochs.next_start(0)
    batches = [
        data.draw(state, np.random.default_rng([1, step]), first + step) for step in range(100_000 // batch_size)
    ]
    rows = np.concatenate([batch.rows for batch in batches if batch is not None])
    assert len(rows) >= 99_000
    assert chisquare(np.bincount(rows, minlength=N), len(rows) * probabilities).pvalue > 1e-4


def test_epoch_zero_takes_the_usual_order_and_epoch_one_is_uniform():
    data = importance(batch_size=8)
    assert all(data.draw(start(data), np.random.default_rng(0), step) is None for step in range(7))
    state, _ = train(data, 7)
    wanted = data.draw(state, np.random.default_rng(0), 7)
    assert wanted is not None
    np.testing.assert_allclose(data.probabilities(state), 1 / N, rtol=1e-12)


def test_unbiased_weights_undo_the_probabilities():
    data = importance(unbiased=True)
    state = {**start(data), "data_cumulative": np.cumsum(mixed(np.arange(N) % 5.0, 0.9))}
    wanted = data.draw(state, np.random.default_rng(0), 20)
    assert wanted is not None
    probabilities = data.probabilities(state)
    np.testing.assert_allclose(wanted.weights, 1 / (N * probabilities[wanted.rows]), rtol=1e-6)
    # The sum over all outcomes, not an average over draws: the expectation is the uniform mean exactly.
    values = np.random.default_rng(1).normal(size=N)
    assert np.sum(probabilities * values / (N * probabilities)) == pytest.approx(values.mean())
    plain = importance().draw(state, np.random.default_rng(0), 20)
    assert plain is not None
    assert (plain.weights == 1).all()


def test_the_mean_over_paths_leaves_out_what_is_not_finite():
    data = importance(batch_size=3, epochs=3)
    rows = np.array([0, 1, 2])
    norms = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.inf]])
    state = data.update(start(data), feedback(0, rows, norms))
    assert state["not_finite"] == 3
    state = data._settle(state)
    np.testing.assert_array_equal(state["data_norms"][:3], [2, 5, 0])
    np.testing.assert_array_equal(state["data_seen"][:3], [True, True, False])


def test_all_importance_zero_or_never_finite_stays_uniform():
    for value in (0.0, np.nan):
        data = importance(batch_size=10)
        state, _ = train(data, 30, lambda step, rows, value=value: np.full(len(rows), value))
        np.testing.assert_allclose(data.probabilities(state), 1 / N, rtol=1e-12)


def test_half_averages_take_copies_in_order():
    rows, values = np.array([2, 0, 2, 2, 0]), np.array([1, 2, 3, 6, 4], np.float32)
    seen = np.array([True, False, False])
    averages, now = half_averages(np.array([8, 9, 9], np.float32), seen, rows, values)
    np.testing.assert_array_equal(averages, [((8 + 2) / 2 + 4) / 2, 9, ((1 + 3) / 2 + 6) / 2])
    np.testing.assert_array_equal(now, [True, False, True])
    np.testing.assert_array_equal(seen, [True, False, False])


def test_probabilities_stay_positive_to_the_last_epoch_and_max_tau_bounds_them():
    for max_tau, least in ((1.0, 1 / 40), (0.5, 1 - 0.5 * 39 / 40)):
        data = importance(batch_size=10, epochs=40, max_tau=max_tau)
        probabilities = data.probabilities(train(data, 200)[0])
        assert probabilities.min() == pytest.approx(least / N)
        assert probabilities.sum() == pytest.approx(1)


def test_effective_sample_size():
    assert effective_sample_size(np.full(10, 0.1)) == pytest.approx(1)
    assert effective_sample_size(np.array([0.5, 0.5, 0, 0])) == pytest.approx(0.5)


def test_steps_leave_the_arrays_of_all_examples_alone():
    """They would cost milliseconds to copy for a million examples; one step in 32 may, and the end of an epoch."""
    data = DataImportance(Epochs(Plan(steps=5000, examples=10**5, batch_size=32)))
    state, copied = start(data), 0
    for step in range(4000, 4200):
        wanted = data.draw(state, np.random.default_rng(step), step)
        assert wanted is not None
        after = data.update(state, feedback(step, wanted.rows, np.ones(32)))
        copied += any(after[name] is not state[name] for name in ("data_norms", "data_seen", "data_cumulative"))
        state = after
    assert 1 <= copied <= 200 // 32


# ------------------------------------------------- why the norm of the logits' gradient is the right importance


@pytest.fixture(scope="module")
def softmax_model():
    """A linear-softmax model of 3 classes over 200 examples: gradients of all examples in W, d and |x|."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6)) * rng.lognormal(sigma=0.5, size=(200, 1))
    logits = x @ rng.normal(size=(6, 3))
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    labels = np.where(rng.random(200) < 0.85, logits.argmax(axis=1), rng.integers(0, 3, 200))
    error = probabilities - np.eye(3)[labels]
    return np.einsum("nf,nc->nfc", x, error), np.linalg.norm(error, axis=1), np.linalg.norm(x, axis=1)


def test_the_gradient_of_the_last_layer_is_the_logits_times_the_features(softmax_model):
    gradients, d, x = softmax_model
    np.testing.assert_allclose(np.linalg.norm(gradients.reshape(200, -1), axis=1), d * x)
    assert (d >= 0).all()
    assert (d <= np.sqrt(2)).all()


def test_corrected_sampling_by_norm_lowers_the_variance_without_moving_the_mean(softmax_model):
    gradients, d, x = softmax_model

    def moments(probabilities: np.ndarray) -> tuple[np.ndarray, float]:
        """Mean and trace of the covariance of g_i / (N p_i), over all outcomes."""
        estimates = gradients / (200 * probabilities[:, None, None])
        mean = np.einsum("n,nfc->fc", probabilities, estimates)
        return mean, float(np.sum(probabilities * np.sum((estimates - mean) ** 2, axis=(1, 2))))

    uniform, by_norm, by_logits = (moments(mixed(norms, 0.9)) for norms in (np.ones(200), d * x, d))
    for mean, variance in (by_norm, by_logits):
        np.testing.assert_allclose(mean, uniform[0], atol=1e-12)
        assert variance < 0.8 * uniform[1]
    assert by_norm[1] < by_logits[1]
