"""The section `supernet`: how subnets share weights, with the settings of schemes that have some."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    InstanceOf,
    PlainSerializer,
    field_validator,
    model_validator,
)

from experiments.configuration.number_types import Positive
from experiments.configuration.plugin_section import STRICT, as_mapping, build_settings
from experiments.configuration.sealed_section import SealedSection
from experiments.storage.run_files import identity_of, is_run
from experiments.user_input.problems import Problem, ProblemsError, unknown
from search_spaces import SearchSpace
from supernet.sharing import SHARING, WeightSharing
from supernet.sharing.elastic_rank import AdapterSettings, ElasticRank
from supernet.sharing.mixture import Mixture, MixtureSettings
from supernet.sharing.split import ChoiceSplit, SplitSharing
from supernet.sharing.stage_expansion import StageExpansion
from supernet.storage.manifest import MANIFEST


class ParentSection(SealedSection):
    """A trained run, whose weights the training starts from; it has to stay where it is."""

    @classmethod
    def _content(cls, path: Path, directory: Path, sealed: bool) -> tuple[Path, str]:
        manifests = sorted((path / "checkpoints").glob(f"step_*/{MANIFEST}"))
        if not is_run(path) or not manifests:
            text = f"{path} is no run with a trained supernet. Train one, without splits, and name its directory."
            raise ProblemsError([Problem(("path",), text)])
        content = [identity_of(path).encode(), *(manifest.read_bytes() for manifest in manifests)]
        return path, hashlib.sha256(b"\n".join(content)).hexdigest()


class SplitSection(BaseModel):
    """A choice whose values fall into groups that share no weights with one another.

    Attributes:
        choice: Name of the choice.
        position: Index of the gene, from 0, where the choice has one per layer or stage.
        groups: Values of each sub-supernet, each value in one group.
    """

    model_config = STRICT

    choice: str
    position: int = Field(default=0, ge=0)
    groups: tuple[tuple[int | float | str, ...], ...]

    @field_validator("groups", mode="before")
    @classmethod
    def _are_values(cls, groups: Any) -> Any:
        for i, group in enumerate(groups if isinstance(groups, list | tuple) else ()):
            for j, value in enumerate(group if isinstance(group, list | tuple) else ()):
                if isinstance(value, bool) or not isinstance(value, int | float | str):
                    raise ProblemsError(
                        [Problem((i, j), f"{json.dumps(value, default=str)} is no number or text. Give values.")]
                    )
        return groups

    @property
    def split(self) -> ChoiceSplit:
        """The split as the sharing scheme takes it."""
        return ChoiceSplit(self.choice, self.groups, self.position)


Adapters = Annotated[
    InstanceOf[AdapterSettings],
    BeforeValidator(lambda v: build_settings(AdapterSettings, v)),
    PlainSerializer(as_mapping),
]

Mixed = Annotated[
    InstanceOf[MixtureSettings],
    BeforeValidator(lambda v: build_settings(MixtureSettings, v)),
    PlainSerializer(as_mapping),
]

_OF_SCHEME = {
    "splits": ("split",), "parent": ("split", "entangled"), "adapters": ("elastic_rank",), "mixture": ("mixture",),
    "stages": ("stage_expansion",),
}  # fmt: skip


class SupernetSection(BaseModel):
    """Weight sharing between the subnets.

    Attributes:
        sharing: Name of a registered sharing scheme.
        splits: Choices that divide the supernet into sub-supernets, for sharing `split`, such as `[{choice: kernel,
            position: 0, groups: [[3], [5, 7]]}]`; every combination of groups is one sub-supernet. `supernest split`
            finds them. If empty, the first suitable choice is halved.
        parent: Run directory whose trained weights the training starts from: for sharing `split`, those of the
            supernet that was split; for `entangled`, those of `linear_expansion` or `stage_expansion`, expanded to the
            depth of the space (`supernest expand`). Null for fresh weights.
        adapters: Low-rank adapters of the frozen weights, for sharing `elastic_rank`.
        mixture: Experts and routers of sharing `mixture`.
        stages: Number of layers of each stage of the deepest network, for sharing `stage_expansion`, such as `[3, 3, 4,
            3, 3]`. If empty, up to five stages of equally many layers.
    """

    model_config = STRICT

    sharing: str = "entangled"
    splits: tuple[SplitSection, ...] = ()
    parent: ParentSection | None = None
    adapters: Adapters = AdapterSettings()
    mixture: Mixed = MixtureSettings()
    stages: tuple[Positive, ...] = ()

    @field_validator("sharing")
    @classmethod
    def _known(cls, sharing: str) -> str:
        if sharing not in SHARING:
            raise ProblemsError([unknown(sharing, SHARING)])
        return sharing

    @model_validator(mode="after")
    def _suits_the_scheme(self) -> "SupernetSection":
        given = [name for name in _OF_SCHEME if getattr(self, name) != type(self).model_fields[name].default]
        problems = [
            Problem(
                (name,),
                f"is for sharing {' or '.join(of)}, and sharing is {self.sharing}. Set sharing: {of[0]}, or leave it "
                "out.",
            )
            for name in given
            if self.sharing not in (of := _OF_SCHEME[name])
        ]
        if problems:
            raise ProblemsError(problems)
        return self

    def scheme(self, space: SearchSpace) -> WeightSharing:
        """Builds the sharing scheme of a space.

        Raises:
            UserError: The scheme does not fit the space.
        """
        if self.splits:
            return SplitSharing(space, [section.split for section in self.splits])
        if self.sharing == "elastic_rank":
            return ElasticRank(space, self.adapters)
        if self.sharing == "mixture":
            return Mixture(space, self.mixture)
        if self.sharing == "stage_expansion":
            return StageExpansion(space, self.stages)
        return SHARING[self.sharing](space)
