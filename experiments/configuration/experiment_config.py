"""ExperimentConfig: the validated YAML of an experiment, as one frozen object that Python users can also make."""

import json
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    InstanceOf,
    PlainSerializer,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from experiments.configuration.data_section import DataSection
from experiments.configuration.device_section import DeviceSection
from experiments.configuration.federation_section import FederationSection
from experiments.configuration.finetune_section import FinetuneSection
from experiments.configuration.plugin_section import STRICT
from experiments.configuration.plugins import import_plugins
from experiments.configuration.pretrained_section import StartSection, with_pretrained
from experiments.configuration.ray_section import RaySection
from experiments.configuration.result_sections import EvaluationSection, ExportSection, RankSection
from experiments.configuration.search_sections import GradientSection, SamplerSection, SearchSection
from experiments.configuration.space_section import SpaceSection
from experiments.configuration.supernet_section import SupernetSection
from experiments.configuration.train_section import TrainSection
from experiments.data import SOURCES, AnySource
from experiments.devices.device_file import DEVICE_METRICS
from experiments.records.plain import JsonObject
from experiments.storage.run_files import CONFIG, check_config, is_run
from experiments.storage.run_identity import run_identity
from experiments.truth_tables import read_table
from experiments.user_input.paths import shown
from experiments.user_input.problems import ConfigError, Problem, ProblemsError, problems_of, show, unknown
from experiments.user_input.yaml_files import dump_yaml, override, parse_override, read_yaml
from search import Budget
from search_spaces import FAMILIES, CostModel, UserError
from search_spaces.names import name_fault
from supernet.sharing import SHARING

SPACES = "spaces"
"""Key of an experiment of several spaces (`experiments.configuration.several_spaces`)."""


def _budgets(given: Any, info: ValidationInfo) -> tuple[Budget, ...]:
    if isinstance(given, tuple) and given and all(isinstance(budget, Budget) for budget in given):
        return given
    if not isinstance(given, Mapping):
        raise ProblemsError(
            [Problem((), f"{show(given)} is not a group of budgets. Write for example half: macs<=50%.")]
        )
    if not given:
        raise ProblemsError([Problem((), "none. Give at least one, such as full: macs<=100%.")])
    space = info.data.get("space")  # not there where it is wrong, which is said then
    metrics = CostModel.metrics if space is None else FAMILIES[space.family].metrics
    budgets, problems = [], []
    for name, spec in given.items():
        try:
            budgets.append(Budget.parse(name, spec, (*metrics, *DEVICE_METRICS)))
        except UserError as error:
            key, _, text = str(error).partition(": ")
            below = key.partition(f"budgets.{name}")[2].strip(".")
            problems.append(Problem((name, below) if below else (name,), text))
    if problems:
        raise ProblemsError(problems)
    return tuple(budgets)


class ExperimentConfig(BaseModel):
    """An experiment: everything that decides its outcome.

    Attributes:
        name: Name of the experiment in reports and of its default run directory; letters, digits, `.`, `_` and `-`. The
            file's name when it is left out.
        seed: Seed of every random draw.
        plugins: Python modules that register families, sources, samplers or searchers; imported first.
        data: Data source and split.
        device: File of `supernest profile` with the device's latency and memory, or null. With it, budgets can limit
            `latency_ms` and `memory_bytes`.
        start: Directory of `supernest import` that training starts from; null for fresh weights.
        space: Search space: sizes of the network that may vary.
        supernet: Weight sharing.
        sampler: Choice of the paths (subnets) that a training step trains.
        train: Training of the supernet.
        search: Choice of the subnets that are evaluated.
        gradient: Training of one architecture together with its weights (`supernest gradient`).
        federation: Training by clients that keep their data (`supernest federate`); null for none.
        evaluation: Evaluation of subnets.
        budgets: Limits of each exported subnet, by a name that you choose: `half: {macs: 50%}` or `half: macs<=50%`. An
            amount is in the metric's unit, or in percent of the most expensive subnet's cost.
        export: Content of an exported subnet.
        rank: Comparison of the supernet's ranking with that of networks trained alone (`supernest rank`).
        finetune: Further training of exported subnets (`supernest finetune`).
        ray: Workers that the experiment runs on; null for this process. Results do not depend on them.
    """

    model_config = STRICT

    name: str = "experiment"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    plugins: tuple[str, ...] = ()
    data: DataSection = DataSection()
    device: DeviceSection | None = None
    start: StartSection | None = None
    space: SpaceSection
    supernet: SupernetSection = SupernetSection()
    sampler: SamplerSection = SamplerSection()
    train: TrainSection
    search: SearchSection = SearchSection()
    gradient: GradientSection = GradientSection()
    federation: FederationSection | None = None
    evaluation: EvaluationSection = EvaluationSection()
    budgets: Annotated[
        tuple[InstanceOf[Budget], ...],
        BeforeValidator(_budgets),
        PlainSerializer(lambda budgets: {budget.name: str(budget) for budget in budgets}),
    ] = (Budget.parse("full", "macs<=100%"),)
    export: ExportSection = ExportSection()
    rank: RankSection = RankSection()
    finetune: FinetuneSection = FinetuneSection()
    ray: RaySection | None = None

    _identity: str | None = PrivateAttr(None)

    @field_validator("name")
    @classmethod
    def _named(cls, name: str) -> str:
        fault = name_fault(name)
        if fault is not None:
            raise ProblemsError([Problem((), f"{shown(name)} {fault}")])
        return name

    @field_validator("plugins")
    @classmethod
    def _modules(cls, plugins: tuple[str, ...]) -> tuple[str, ...]:
        for i, name in enumerate(plugins):
            if not all(part.isidentifier() for part in name.split(".")):
                text = f"{shown(name)} is no module. Write it as an import statement does: my_package.my_space."
                raise ProblemsError([Problem((i,), text)])
        return plugins

    @model_validator(mode="before")
    @classmethod
    def _begun(cls, given: Any, info: ValidationInfo) -> Any:
        return with_pretrained(given, info.context)

    @model_validator(mode="after")
    def _panel_warms_up(self) -> "ExperimentConfig":
        steps, warmup = self.rank.steps, self.train.optimizer.warmup_steps
        if steps is not None and warmup >= steps:
            text = f"{steps} is not more than the {warmup} steps of train.optimizer.warmup_steps. Give more."
            raise ProblemsError([Problem(("rank", "steps"), text)])
        return self

    @model_validator(mode="after")
    def _sharing_leaves_a_start_as_it_is(self) -> "ExperimentConfig":
        starts = {"start": self.start, "train.incubation": self.train.incubation}
        given, sharing = [name for name, section in starts.items() if section is not None], self.supernet.sharing
        if given and not SHARING[sharing].keeps_plain:
            text = f"{sharing} would change the network that {given[0]} gives. Set entangled, or leave that out."
            raise ProblemsError([Problem(("supernet", "sharing"), text)])
        if given and sharing == "mixture" and not self.supernet.mixture.keeps_plain:
            text = f"independent experts would change the networks that {given[0]} gives. Set equal."
            raise ProblemsError([Problem(("supernet", "mixture", "start"), text)])
        return self

    @model_validator(mode="after")
    def _truth_is_of_the_family(self) -> "ExperimentConfig":
        if self.rank.truth is None:
            return self
        try:
            table = read_table(self.rank.truth, self.rank.truth_path)
            table.measure(self.rank.truth_measure or table.truth)
        except UserError as error:
            raise ProblemsError([Problem(("rank", "truth"), str(error))]) from None
        if table.space.family != self.space.family:
            text = f"{table.name} is a table of family {table.space.family}, and space.family is {self.space.family}."
            raise ProblemsError([Problem(("rank", "truth"), f"{text} Leave it out, or set that family.")])
        return self

    @model_validator(mode="after")
    def _gradient_knows_its_budget(self) -> "ExperimentConfig":
        known, name = [budget.name for budget in self.budgets], self.gradient.budget
        if name is not None and name not in known:
            raise ProblemsError([Problem(("gradient", "budget"), unknown(name, known).text)])
        return self

    @model_validator(mode="after")
    def _has_device(self) -> "ExperimentConfig":
        needed = [(b.name, limit.metric) for b in self.budgets for limit in b.limits if limit.metric in DEVICE_METRICS]
        if needed and self.device is None:
            text = "{} is known with a device file only. Measure one with supernest profile, and set device: FILE."
            raise ProblemsError([Problem(("budgets", name), text.format(metric)) for name, metric in needed])
        return self

    def as_dict(self) -> JsonObject:
        """Returns the whole configuration with defaults as plain values."""
        return json.loads(self.model_dump_json())

    def dump(self) -> str:
        """Returns the whole configuration with defaults as YAML, which `load_config` reads back unchanged."""
        return dump_yaml(self.as_dict())

    @property
    def identity(self) -> str:
        """Hash that binds the files of a run to one another; settings that may differ on a resume do not count.

        A run whose settings were changed later keeps the hash that it began with.
        """
        return self._identity or run_identity(self.as_dict())

    def bind(self, identity: str | None) -> None:
        """Makes this the configuration of a run that began with this identity; of a new run when None."""
        self._identity = identity


def load_config(path: Path | str, overrides: Sequence[str] = (), without: Collection[str] = ()) -> ExperimentConfig:
    """Reads and checks an experiment file.

    Paths in the file are relative to the file, paths in overrides to the working directory. Plug-ins are imported,
    also from the directory of the file.

    Args:
        path: The YAML file. Its stem is the experiment's name where the file gives none.
        overrides: Settings as `a.b=value`, the value being YAML; applied in order.
        without: Sections of the file that are not wanted, and so need not be right.

    Raises:
        UserError: Anything that is wrong, one line for each problem.
    """
    file = read_experiment(Path(path), overrides, without)
    if SPACES in file.tree:
        text = "several are for supernest run, check and status. Each of their runs is one of its own: RUN/spaces/NAME."
        raise ConfigError([Problem((SPACES,), text)], lambda _: str(path))
    return validated(file)


class ExperimentFile(NamedTuple):
    """An experiment that was read and not checked yet.

    Attributes:
        path: The file.
        tree: Its settings, overrides among them.
        overridden: Keys of the overrides.
        in_file: Keys at the top of the file.
    """

    path: Path
    tree: Mapping[str, Any]
    overridden: Sequence[tuple[str, ...]]
    in_file: Container[str]


def read_experiment(path: Path, overrides: Sequence[str] = (), without: Collection[str] = ()) -> ExperimentFile:
    """Reads an experiment file; see `load_config` for the arguments and errors."""
    if path.name == CONFIG and is_run(path.parent):
        check_config(path.parent)
    in_file = {key: value for key, value in read_yaml(path).items() if key not in without}
    tree = {"name": path.stem, **in_file}
    overridden = []
    for text in overrides:
        keys, value = parse_override(text)
        if isinstance(value, str) and value and _is_path(tree, keys, value):
            value = str(Path(value).absolute())
        tree = override(tree, keys, value)
        overridden.append(keys)
    return ExperimentFile(path, tree, overridden, in_file)


def _is_path(tree: Mapping[str, Any], keys: tuple[str, ...], value: str) -> bool:
    """Whether a setting of the command line is a path; some of data may be names where there is no such path."""
    if keys[0] != "data" or len(keys) != 2:
        return keys in (
            ("rank", "cache"),
            ("rank", "truth_path"),
            ("device",),
            ("device", "path"),
            ("start",),
            ("start", "path"),
            ("supernet", "parent"),
            ("supernet", "parent", "path"),
        )
    data = tree.get("data")
    source = data.get("source") if isinstance(data, Mapping) else None
    plugin = SOURCES[source] if isinstance(source, str) and source in SOURCES else AnySource
    return keys[1] in plugin.paths and (keys[1] not in plugin.names or Path(value).exists())


def config_of(tree: Mapping[str, Any], directory: Path, name: str = "config.yaml") -> ExperimentConfig:
    """Checks an experiment that is given as plain values, such as `ExperimentConfig.as_dict` gives.

    Args:
        tree: Plain values.
        directory: Directory that paths are relative to, and where a copy of the device file may be.
        name: Name of the experiment in messages.

    Raises:
        UserError: A plug-in is missing, or a file that it names.
    """
    return validated(ExperimentFile(directory / name, tree, (), tree))


def load_data_section(settings: Iterable[str], source: str | None = None) -> DataSection:
    """Makes a data section from settings of the command line.

    Args:
        settings: Settings as `key=value`, without `data.`.
        source: A registered source.

    Raises:
        UserError: Anything that is wrong.
    """
    tree: JsonObject = {} if source is None else {"source": source}
    for text in settings:
        keys, value = parse_override(text)
        tree = override(tree, keys[1:] if keys[0] == "data" and len(keys) > 1 else keys, value)
    try:
        return DataSection.model_validate(_with_tuples(tree), context={"paths_from": Path.cwd()})
    except ValidationError as error:
        problems = [Problem(("data", *p.location), p.text) for p in problems_of(error, DataSection)]
        raise ConfigError(problems, lambda _: "--data") from None


def validated(file: ExperimentFile) -> ExperimentConfig:
    """Checks an experiment that was read.

    Raises:
        UserError: Anything that is wrong, one line for each problem.
    """
    path, tree, overridden, in_file = file

    def source(problem: Problem) -> str:
        location = tuple(str(part) for part in problem.location)
        below = any(location[: len(keys)] == keys for keys in overridden)
        above = any(keys[: len(location)] == location for keys in overridden) and location[0] not in in_file
        return "--set" if below or above else str(path)

    directory = path.absolute().parent
    try:
        import_plugins(tree.get("plugins"), directory)
        return ExperimentConfig.model_validate(_with_tuples(tree), context={"paths_from": directory})
    except ValidationError as error:
        raise ConfigError(problems_of(error, ExperimentConfig), source) from None
    except ProblemsError as error:
        raise ConfigError(error.problems, source) from None


def _with_tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_tuples(below) for key, below in value.items()}
    if isinstance(value, list):
        return tuple(_with_tuples(item) for item in value)
    return value
