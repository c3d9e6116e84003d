"""Members of an incubation: the trainings of the meta-model and of each module, as experiments of their own."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int

from experiments.configuration.incubation_section import META_PART, IncubationSection, module_part
from experiments.configuration.supernet_section import SupernetSection
from experiments.experiment import Experiment
from experiments.training.one_path import OnePath
from search_spaces import SearchSpace, UserError
from search_spaces.divided import check_modules, divided
from search_spaces.randomness import Purpose, entropy
from supernet.engine.elastic_network import ElasticNetwork
from supernet.engine.modules import MODULE, Ends, ends_of, layers_of_hybrid
from supernet.engine.supernet import build_supernet
from supernet.tasks.distillation import Distillation

KEY = "train.incubation"
_SEEDS = 2**31


@dataclass(frozen=True)
class Member:
    """One training of an incubation.

    Attributes:
        name: Name of its directory.
        title: Title for people.
        experiment: Experiment that is trained.
        number: 0 for the meta-model, and from 1 for the modules.
        trained: Names of the weights that are trained; all when None.
    """

    name: str
    title: str
    experiment: Experiment
    number: int
    trained: frozenset[str] | None = None

    @property
    def genes(self) -> Int[np.ndarray, " g"]:
        """The architecture that is trained, the largest of its space."""
        return np.array(self.experiment.space.largest.genes, np.int32)


@dataclass(frozen=True)
class Incubation:
    """The trainings that the section `train.incubation` of an experiment asks for.

    Attributes:
        experiment: The experiment whose training starts from what they give.
    """

    experiment: Experiment

    @property
    def settings(self) -> IncubationSection:
        """The section."""
        settings = self.experiment.config.train.incubation
        assert settings is not None
        return settings

    @cached_property
    def layers(self) -> int:
        """Layers of each module."""
        (stack,) = self.experiment.space.network.stacks
        return (stack.layers or 1) // self.settings.modules

    @cached_property
    def ends(self) -> Ends:
        """Returns the module that each of the weights outside the layers belongs to."""
        net = build_supernet(self.experiment.space)
        assert isinstance(net, ElasticNetwork)
        return ends_of(net)

    @cached_property
    def meta(self) -> Member:
        """The training of the meta-model."""
        settings = self.settings
        space = divided(self.experiment.space, {MODULE: settings.modules})
        return Member(META_PART, "meta-model", self._experiment(space, settings.meta_steps, 0), 0)

    def module(self, index: int) -> Member:
        """Returns the training of module number `index`, from 0, between the layers of the meta-model."""
        settings = self.settings
        space = divided(self.experiment.space, layers_of_hybrid(index, settings.modules, self.layers))
        return Member(
            module_part(index),
            f"module {index + 1} of {settings.modules}",
            self._experiment(space, settings.module_steps, index + 1),
            index + 1,
            self.ends.of(index, settings.modules) | {MODULE},
        )

    def _experiment(self, space: SearchSpace, steps: int, number: int) -> Experiment:
        """The largest network of a space alone, by labels; batches in an order of their own, without an average."""
        config = self.experiment.config
        train = config.train.model_copy(
            update={
                "steps": steps, "epochs": None, "optimizer": self.settings.optimizer(config.train.optimizer),
                "distillation": Distillation(), "path_batch": "whole", "ema": None, "evaluate_every": steps,
                "diagnose_every": None, "keep_last": 1, "keep_best": 0, "checkpoint": "last", "exits": (),
                "incubation": None,
            }
        )  # fmt: skip
        seed = entropy(config.seed, Purpose.MODULE_EXAMPLES, number) % _SEEDS
        config = config.model_copy(
            update={
                "seed": seed, "train": train, "ray": None,
                "supernet": SupernetSection(),
            }
        )  # fmt: skip
        sampler = OnePath(space, seed, genes=tuple(int(gene) for gene in space.largest.genes))
        return dataclasses.replace(self.experiment, config=config, space=space, sampler=sampler)


def check_incubation(experiment: Experiment) -> None:
    """Refuses an incubation that cannot be computed.

    Raises:
        UserError: The space cannot be cut into the modules, the training starts from something else, or workers do not
            see what others have trained.
    """
    config = experiment.config
    settings = config.train.incubation
    if settings is None:
        return
    check_modules(experiment.space, settings.modules, KEY)
    if config.start is not None:
        raise UserError(f"{KEY}: not together with start, which gives first weights too. Leave one of them out.")
    if config.ray is not None and config.ray.storage is not None:
        raise UserError(
            f"ray.storage: not with {KEY}, whose modules lie in the run directory. Give an --out that all workers see, "
            "and leave storage out."
        )
