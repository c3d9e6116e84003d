"""Standard tasks for language models, of lm-evaluation-harness, on exported networks.

The library prepares the examples and computes the figures; the log-likelihoods and the text are the network's.

References:
    Gao et al. The Language Model Evaluation Harness. Zenodo 2024, doi:10.5281/zenodo.12608602.
"""

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.data.tokenizer import load_tokenizer
from experiments.process.progress import progress_bar
from experiments.records.use import TaskFigures
from experiments.subnets.generation import language_model
from experiments.user_input.yaml_files import read_yaml
from search_spaces import UserError
from search_spaces.sealed_json import JsonObject

_YAML = (".yaml", ".yml")


def evaluate_tasks(
    directory: Path, tasks: Sequence[str], limit: int | None = None, shots: int | None = None
) -> list[TaskFigures]:
    """Measures an exported language model on tasks.

    Args:
        directory: The exported network.
        tasks: Task files (YAML), or names of tasks of the library, whose data it downloads where they are not stored.
        limit: Most examples of each task; all when None.
        shots: Number of solved examples before each; as the task says when None.

    Returns:
        The figures of each task, in their order.

    Raises:
        UserError: The library is missing, the network is no decoder, or a task cannot be read or has no data.
    """
    evaluator, manager = _library()
    from experiments.subnets.harness import ExportedModel

    subnet, model, name = language_model(directory)
    if not model.form.causal:
        raise UserError(f"{directory}: an encoder, and the tasks are for decoders. Give one.")
    specified = [_specified(task) for task in tasks]
    bos, bar = bool(subnet.config.get("bos", False)), progress_bar(desc="tasks", unit="request", quiet=False)
    with contextlib.closing(bar), _quiet():
        try:
            found = evaluator.simple_evaluate(
                ExportedModel(model, load_tokenizer(name), bos, bar.update),
                tasks=specified,
                limit=limit,
                num_fewshot=shots,
                bootstrap_iters=1000,
                log_samples=False,
                task_manager=manager(include_defaults=any(isinstance(one, str) for one in specified)),
            )
        except UserError:
            raise
        except Exception as error:  # the library raises whatever its tasks and data sets do
            told = " ".join(str(error).split()) or "no message"
            raise UserError(
                f"--tasks: {', '.join(tasks)}: {type(error).__name__}: {told[:300]}. Correct the task, or its data."
            ) from None
    return [_figures(task, found) for task in found["results"]]


def _library() -> tuple[Any, Any]:
    """Imports the library's evaluator and its class of managers of tasks."""
    try:
        from lm_eval import evaluator
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise UserError(
            "--tasks: needs the library `lm-eval`, which is not installed. Run: pip install 'supernest[lm-eval]'"
        ) from None
    return evaluator, TaskManager


def _specified(task: str) -> str | JsonObject:
    """Returns a task of a file with its data beside it, and the name of any other."""
    if Path(task).suffix not in _YAML:
        return task
    file = Path(task)
    settings = read_yaml(file)
    if "include" in settings:
        raise UserError(f"{file}: include: other files are not read. Write their settings out.")
    if not isinstance(settings.get("task"), str):
        raise UserError(f"{file}: no task of lm-evaluation-harness, as it does not name itself. Give it a key `task`.")
    kwargs = settings.get("dataset_kwargs")
    if isinstance(kwargs, Mapping) and "data_files" in kwargs:
        found = _located(file, kwargs["data_files"])
        settings = {**settings, "dataset_kwargs": {**kwargs, "data_files": found}}
    return settings


def _located(file: Path, data: Any) -> Any:
    """Returns the paths of a task's data, which are relative to its file."""
    if isinstance(data, Mapping):
        return {split: _located(file, value) for split, value in data.items()}
    if isinstance(data, list):
        return [_located(file, value) for value in data]
    path = file.parent / str(data)
    if "://" in str(data):
        return data
    if not path.is_file():
        raise UserError(f"{file}: dataset_kwargs.data_files: {path} is no file. Give paths relative to {file.parent}.")
    return str(path.absolute())


def _figures(task: str, found: Mapping[str, Any]) -> TaskFigures:
    """Returns the figures of a task; of those that the library has no standard error for, it is None."""
    values: dict[str, tuple[float, float | None]] = {}
    results = found["results"][task]
    for key, value in results.items():
        metric, _, filtered = key.partition(",")
        if not filtered or metric.endswith("_stderr") or not isinstance(value, (int, float)):
            continue
        error = results.get(f"{metric}_stderr,{filtered}")
        name = metric if filtered == "none" else f"{metric} ({filtered})"
        values[name] = float(value), float(error) if isinstance(error, (int, float)) else None
    examples = found.get("n-samples", {}).get(task, {}).get("effective", 0)
    return TaskFigures(task, examples, found.get("n-shot", {}).get(task), values)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what the library and its data sets print to themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
