"""Tasks of lm-evaluation-harness: figures are those of the library's own `transformers` model, from task files."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments import cli
from experiments.pretrained.import_command import import_to
from tests.experiments.data.test_tokenizers import WORDS, tokenizer
from tests.experiments.small_checkpoint import write_checkpoint_of
from tests.experiments.subnets.test_generation import exported

_CHOICE = """\
task: next_words
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{before}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
num_fewshot: 0
"""
_TEXTS = """\
task: whole_texts
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{whole}}"
num_fewshot: 0
metric_list:
  - {metric: word_perplexity}
  - {metric: bits_per_byte}
"""
_WRITES = """\
task: written
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{before}}"
doc_to_target: "{{written}}"
num_fewshot: 0
generation_kwargs: {until: ["\\n"], max_gen_toks: 3, do_sample: false, temperature: 0}
metric_list:
  - {metric: exact_match}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("tasks")
    write_checkpoint_of("llama", home / "llama", vocabulary=320)
    for file in tokenizer(home / "made", template="<s> $A").iterdir():
        file.rename(home / "llama" / file.name)
    import_to(str(home / "llama"), home / "ours")
    exported(home / "ours", home / "subnet", bos=True)
    words = WORDS.split()
    rows = [
        {
            "before": " ".join(words[i : i + 3]),
            "choices": [" " + word for word in words[i + 3 : i + 6]],
            "answer": i % 3,
            "whole": " ".join(words[i:] + words),
            "written": " ".join(words[i : i + 2]),
        }
        for i in range(4)
    ]
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in (("choice", _CHOICE), ("texts", _TEXTS), ("writes", _WRITES)):
        (home / f"{name}.yaml").write_text(text)
    return home


def evaluated(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.main(["evaluate", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_figures_are_those_of_the_library_with_transformers(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="needs the extra `parity`")
    lm_eval = pytest.importorskip("lm_eval", reason="needs the extra `lm-eval`")
    files = [str(home / f"{name}.yaml") for name in ("choice", "texts", "writes")]
    tasks = [part for file in files for part in ("--tasks", file)]
    code, out, err = evaluated([str(home / "subnet"), "--json", *tasks], capsys)
    assert code == 0, err
    found = {one["task"]: one for one in json.loads(out)}
    assert {name: one["examples"] for name, one in found.items()} == {"next_words": 4, "whole_texts": 4, "written": 4}
    theirs = _theirs(lm_eval, home, files)
    for task, figures in theirs.items():
        ours = found[task]["figures"]
        assert ours.keys() == figures.keys()
        for name, value in figures.items():
            assert ours[name][0] == pytest.approx(value, rel=1e-4), (task, name)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Give --data or --tasks"),
        (["--data", "digits", "--tasks", "{}/choice.yaml"], "Give --data or --tasks"),
        (["--data", "digits", "--limit", "2"], "--limit: goes with --tasks only"),
        (["--tasks", "{}/choice.yaml", "--metric", "bleu"], "--metric: goes with --data only"),
        (["--tasks", "{}/none.yaml"], "none.yaml"),
        (["--tasks", "{}/rows.yaml"], "rows.yaml: no task of lm-evaluation-harness"),
        (["--tasks", "{}/lost.yaml"], "dataset_kwargs.data_files: {}/lost.jsonl is no file"),
        (["--tasks", "{}/code.yaml"], "code.yaml"),
        (["--tasks", "{}/more.yaml"], "more.yaml: include: other files are not read"),
        (["--tasks", "{}/draws.yaml"], "the task draws tokens"),
        (["--tasks", "{}/long.yaml"], "tokens to be scored, and the network takes 32"),
        (["--tasks", "{}/wrong.yaml"], "wrong.yaml: UndefinedError: 'missing' is undefined"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    arguments: list[str], said: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lm_eval", reason="needs the extra `lm-eval`")
    (home / "rows.yaml").write_text("dataset_path: json\n")
    (home / "lost.yaml").write_text(_CHOICE.replace("rows.jsonl", "lost.jsonl"))
    (home / "code.yaml").write_text(_CHOICE.replace('"{{before}}"', "!function code.text"))
    (home / "more.yaml").write_text("include: choice.yaml\ntask: another\n")
    (home / "draws.yaml").write_text(_WRITES.replace("do_sample: false", "do_sample: true"))
    scored = _TEXTS.partition("metric_list")[0].replace("loglikelihood_rolling", "loglikelihood")
    (home / "long.yaml").write_text(scored.replace('""', '"{{before}}"').replace("{{whole}}", "{{whole}} {{whole}}"))
    (home / "wrong.yaml").write_text(_CHOICE.replace("{{before}}", "{{missing.of}}"))
    code, out, err = evaluated([str(home / "subnet"), *(part.format(home) for part in arguments)], capsys)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("error: ")
    assert said.format(home) in err


def _theirs(lm_eval: Any, home: Path, files: list[str]) -> dict[str, dict[str, float]]:
    from lm_eval.tasks import TaskManager

    from experiments.subnets.language_tasks import _specified

    found = lm_eval.simple_evaluate(
        "hf", f"pretrained={home / 'llama'},max_length=32,dtype=float32,add_bos_token=True", batch_size=2, device="cpu",
        tasks=[_specified(file) for file in files], bootstrap_iters=0, log_samples=False,
        task_manager=TaskManager(include_defaults=False),
    )["results"]  # fmt: skip
    return {
        task: {
            key.removesuffix(",none"): value
            for key, value in one.items()
            if key.endswith(",none") and "stderr" not in key
        }
        for task, one in found.items()
    }
