"""The section `space`: what may vary."""

import dataclasses
from typing import Any, ClassVar

from pydantic import ValidationInfo, field_validator

from experiments.configuration.plugin_section import PluginSection
from experiments.data import Dataset
from experiments.user_input.problems import ProblemsError, unknown
from search_spaces import FAMILIES, Registry, SearchSpace, UserError, build_space


class SpaceSection(PluginSection):
    """Search space: a family, one of its presets, and fields of the family that override the preset.

    Attributes:
        family: Name of a registered family; its settings are given beside this key.
        preset: Name of one of the family's presets; null where the settings give every size.
    """

    selector: ClassVar[str] = "family"
    partial: ClassVar[bool] = True

    family: str
    preset: str | None = None

    @classmethod
    def registry(cls) -> Registry[Any]:
        return FAMILIES

    @field_validator("preset")
    @classmethod
    def _known(cls, preset: str | None, info: ValidationInfo) -> str | None:
        if preset is not None and "family" in info.data:
            presets = FAMILIES[info.data["family"]].presets
            if preset not in presets:
                raise ProblemsError([unknown(preset, presets)])
        return preset

    def build(self, data: Dataset) -> SearchSpace:
        """Builds the space for a data set, which provides missing settings.

        Raises:
            UserError: The settings contradict each other or the data.
        """
        family = FAMILIES[self.family]
        if not family.takes(data.inputs):
            names = [name for name in FAMILIES if FAMILIES[name].takes(data.inputs)]
            choose = f"Choose one of {', '.join(names)}, or" if names else "Name a family that takes them, or"
            raise UserError(
                f"space.family: {self.family} takes {' or '.join(family.tasks())}, and the data are {data.inputs}. "
                f"{choose} another data.source."
            )
        from_data = data.settings({field.name for field in dataclasses.fields(family)})  # type: ignore[arg-type]
        for name, value in from_data.items():
            if name in self.settings:
                data.check_setting(name, self.settings[name], value)
        return build_space(self.family, self.preset, {**from_data, **self.settings})
