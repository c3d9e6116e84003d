"""Records of a run and their JSON: what was written is read back the same, whatever was run."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.records import Answer, Summary, TrainingFigures

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
FIGURES = st.dictionaries(st.sampled_from(["accuracy", "rmse", "perplexity"]), NUMBERS, min_size=1)
COSTS = st.dictionaries(st.sampled_from(["params", "macs", "kv_cache_bytes"]), st.integers(0, 10**12), min_size=1)


@st.composite
def networks(draw):
    network = {
        "budget": draw(st.text()), "limits": draw(COSTS), **draw(COSTS),
        "memory": {"bytes": draw(st.integers(0)), "batch_size": 1, "platform": "cpu", "runtime": "jax"},
        "parity_error": draw(NUMBERS), "directory": draw(st.text()),
    }  # fmt: skip
    network |= {f"{split}_{name}": value for split in ("validation", "test") for name, value in draw(FIGURES).items()}
    if draw(st.booleans()):
        network["predicted"] = {"latency_ms": 1.5, "memory_bytes": 100.0, "batch_size": 8, "device": "phone"}
    if draw(st.booleans()):
        network["measured"] = {"latency_ms": 1.25, "batch_size": 8, "runtime": "onnxruntime", "threads": 2}
    if draw(st.booleans()):
        network["over_limit"] = draw(st.text(min_size=1))
    return network


@st.composite
def answers(draw):
    found = {
        "architecture": {"width": 8}, "genes": [0, 1], "costs": draw(COSTS), "uses": draw(FIGURES),
        "validation_loss": draw(NUMBERS),
    }  # fmt: skip
    answer = {
        "budget": "macs<=1", "name": "macs1", "limits": draw(COSTS), "evaluated": 3, "objective": "loss", "within": 1,
        "best": None, "nearest": None,
    }  # fmt: skip
    answer[draw(st.sampled_from(["best", "nearest"]))] = found
    more = {"device": st.just({"name": "phone", "batch_size": 2}), "subnet": networks()}
    return answer | draw(st.fixed_dictionaries({}, optional=more))


TRAIN = st.fixed_dictionaries(
    {"steps": st.integers(0)},
    optional={
        "programs_compiled": st.integers(0), "rematerialize": st.booleans(), "probe_error": NUMBERS | st.none(),
        "workers": st.integers(1), "fewest_workers": st.integers(1), "restarts": st.integers(0),
        "taken_from": st.text(),
    },
)  # fmt: skip
GRADIENT = {
    "steps": 3, "type": "darts", "budget": "half", "architecture": {"width": [8, 4]}, "macs": 7, "params": 8,
    "validation_error": 0.25, "expected_cost_over_budget": {"macs": 0.9}, "mean_probability": 0.5,
    "genes_changed_for_budget": 0, "entropy": {"width": 0.5},
}  # fmt: skip
RANK = {
    "panel": 3, "objective": "loss", "figure": "accuracy", "examples": 9, "unit": "images",
    "kendall_tau": {"value": 0.5, "low": None, "high": None, "reason": ""},
    "regret": {"value": None, "low": None, "high": None, "reason": "too few"},
    "baselines": {"parameters": {"kendall_tau": 0.25, "tau_top_10": None, "regret": 0.5}},
    "early_stopping": {"stopped": 1, "share_of_steps": 0.75}, "plot": None,
}  # fmt: skip
SUMMARIES = st.fixed_dictionaries(
    {"name": st.text(), "objective": st.just("loss")},
    optional={
        "chance": NUMBERS, "space": st.just({"family": "vit", "size": 10**30}), "train": TRAIN,
        "gradient": st.just(GRADIENT), "search": st.just({"evaluated": 4, "failed": 1}),
        "subnets": st.lists(networks(), max_size=2), "rank": st.just(RANK),
        "new_budgets": st.dictionaries(st.text(), answers(), min_size=1, max_size=2),
    },
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(SUMMARIES)
def test_a_summary_is_read_as_it_was_written(content):
    summary = Summary.from_json(content)
    assert json.loads(json.dumps(summary.as_json())) == content
    assert Summary.from_json({**summary.as_json(), "sha256": "f00"}) == summary


@settings(max_examples=30, deadline=None)
@given(answers())
def test_an_answer_is_read_as_it_was_written(content):
    assert json.loads(json.dumps(Answer.from_json(content).as_json())) == content


def test_what_a_call_does_not_know_of_a_training_an_earlier_one_does():
    earlier = TrainingFigures.from_json({"steps": 5, "probe_error": 0.5, "workers": 2})
    now = TrainingFigures.from_json({"steps": 9, "programs_compiled": 1})
    assert now.over(earlier) == TrainingFigures(9, 1, probe={"error": 0.5}, workers=2)
    assert now.over(None) is now
