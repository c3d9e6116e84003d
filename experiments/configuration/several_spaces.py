"""The key `spaces`: an experiment of several search spaces, which becomes one experiment for each.

References:
    Xu et al. Few-shot Task-agnostic Neural Architecture Search for Distilling Large Language Models. NeurIPS 2022
    (AutoDistil: a supernet for each of K compact spaces; the best network of all is chosen for a budget).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from experiments.configuration.experiment_config import (
    SPACES,
    ExperimentConfig,
    ExperimentFile,
    read_experiment,
    validated,
)
from experiments.storage.run_files import CONFIG
from experiments.user_input.problems import ConfigError, Location, Problem, show
from experiments.user_input.yaml_files import dump_yaml
from search_spaces.names import name_fault
from supernet.storage.manifest import write_text_atomically

_OF_ONE_SPACE = {
    "device": "a device file is measured for one space",
    "federation": "clients train networks of one space",
}


def load_spaces(path: Path, overrides: Sequence[str] = ()) -> dict[str, ExperimentConfig] | None:
    """Reads the experiments of a file with several spaces, which differ in their space and name alone.

    Args:
        path: The YAML file.
        overrides: As in `load_config`.

    Returns:
        The experiment of each space, by the name of the space; None where the file has no key `spaces`.

    Raises:
        UserError: No space, a space without a name or with that of another, unlike families, settings that are for one
            space only, or anything that is wrong in one of the experiments.
    """
    file = read_experiment(path, overrides)
    if SPACES not in file.tree:
        return None
    given = file.tree[SPACES]
    if not isinstance(given, list | tuple) or not given:
        _refuse(file, (SPACES,), f"{show(given)} is no list of spaces. Give at least one: [{{family: NAME, ...}}].")
    if file.tree.get("space") is not None:
        _refuse(file, (SPACES,), "not beside space. Leave one of them out.")
    for key, why in _OF_ONE_SPACE.items():
        if file.tree.get(key) is not None:
            _refuse(file, (key,), f"not beside spaces, as {why}. Leave it out, or give one space.")
    found: dict[str, ExperimentConfig] = {}
    for i, entry in enumerate(given):
        name = _name(file, i, entry, found)
        space = {key: value for key, value in entry.items() if key != "name"}
        found[name] = _experiment(file, i, name, space)
    first = next(iter(found.values()))
    for i, config in enumerate(found.values()):
        if config.space.family != first.space.family:
            text = f"{config.space.family}, and the first space has {first.space.family}. Give all of them one family."
            _refuse(file, (SPACES, i, "family"), text)
    if first.supernet.parent is not None:
        _refuse(file, ("supernet", "parent"), "not beside spaces, as a parent has one space. Leave it out.")
    return found


def write_spaces(configs: Mapping[str, ExperimentConfig], name: str, directory: Path) -> None:
    """Writes the experiments as one file that `load_spaces` reads back, `config.yaml` in a directory."""
    trees = {space: config.as_dict() for space, config in configs.items()}
    whole = {key: value for key, value in next(iter(trees.values())).items() if key != "space"}
    spaces = [{"name": space, **tree["space"]} for space, tree in trees.items()]
    write_text_atomically(directory / CONFIG, dump_yaml({**whole, "name": name, SPACES: spaces}))


def _name(file: ExperimentFile, number: int, entry: Any, taken: Mapping[str, Any]) -> str:
    """Returns the name of a space: its own, or that of its preset."""
    if not isinstance(entry, Mapping):
        _refuse(file, (SPACES, number), f"{show(entry)} is not a group of settings. Give settings as for space.")
    name, where = entry.get("name", entry.get("preset")), (SPACES, number, "name")
    if name is None:
        _refuse(file, where, "missing. Give each space a name, or a preset.")
    if (fault := name_fault(name)) is not None:
        _refuse(file, where, f"{show(name)} {fault}")
    if name in taken:
        _refuse(file, where, f"{show(name)} is the name of another space, too. Give each its own.")
    return str(name)


def _experiment(file: ExperimentFile, number: int, name: str, space: Mapping[str, Any]) -> ExperimentConfig:
    tree = {key: value for key, value in file.tree.items() if key != SPACES}
    try:
        return validated(file._replace(tree={**tree, "name": f"{tree['name']}-{name}", "space": space}))
    except ConfigError as error:
        if all(problem.location[:1] != ("space",) for problem in error.problems):
            raise
        problems = [
            Problem((SPACES, number, *problem.location[1:]), problem.text)
            for problem in error.problems
            if problem.location[:1] == ("space",)
        ]
        raise ConfigError(problems, lambda _: str(file.path)) from None


def _refuse(file: ExperimentFile, location: Location, text: str) -> NoReturn:
    raise ConfigError([Problem(location, text)], lambda _: str(file.path))
