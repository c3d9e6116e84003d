"""The commented experiment file that `supernest init` writes: its parts come from the family and a data source."""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.data import SOURCES
from experiments.user_input.yaml_files import dump_yaml
from search_spaces import FAMILIES, UserError
from search_spaces.errors import one_line


class Proposal(NamedTuple):
    """Parts of an experiment that follow from its data.

    Attributes:
        family: A registered family that takes the data.
        data: The section `data`, as YAML.
        space: Lines of the section `space`, in place of the family's template.
        steps: Number of training steps.
        batch_size: Number of examples a step.
        seen: Lines about the data.
    """

    family: str
    data: str
    space: str
    steps: int
    batch_size: int
    seen: tuple[str, ...]


def starter(family: str, name: str, file: str, plugins: Sequence[str] = (), proposal: Proposal | None = None) -> str:
    """Returns a whole experiment file, with comments.

    Args:
        family: A registered family.
        name: Name of the experiment.
        file: Path of the file to be written, for the commands in its comments.
        plugins: Modules that it needs.
        proposal: Settings that follow from inspected data; the template of a source when None.

    Raises:
        UserError: No data source that the family takes has a template.
    """
    cls = FAMILIES[family]
    sources = (SOURCES[one] for one in SOURCES)
    data = next((source.template for source in sources if source.template and cls.takes(source.inputs)), None)
    space, steps, batch_size, seen = cls.template.space, 3000, 64, ""
    if proposal is not None:
        data, space, steps, batch_size = proposal.data + "\n", proposal.space, proposal.steps, proposal.batch_size
        seen = "".join(f"# {one_line(line)}\n" for line in proposal.seen)
    if data is None:
        raise UserError(
            f"--family: {family!r} takes {' or '.join(cls.tasks())}, of which no data source has a template. Write the "
            "experiment file by hand."
        )
    preset = next((one for one in ("small", *cls.presets) if one in cls.presets), None)
    chosen = "" if preset is None else f"  preset: {preset:<17}# supernest list presets\n"
    return f"""\
# An experiment: from data to a standalone network for each budget.
#   supernest check {file}
#   supernest run {file} --out runs/{name}
{seen}{dump_yaml({"name": name, **({"plugins": list(plugins)} if plugins else {})}).strip()}
seed: 0

{data}
space:
  family: {family}
{chosen}{space}
supernet:
  sharing: entangled       # supernest list sharing

sampler:
  type: sandwich           # the largest, the smallest and random subnets at every step
  random_paths: 2

train:
  steps: {steps:<18}# or epochs; more steps give more
  batch_size: {batch_size}
{cls.template.train}\
  distillation: {{type: largest, weight: 0.5}}  # other subnets learn from the largest one
  ema: 0.995               # moving average of the weights, which search and export use; null for none
  checkpoint_every: 500
  evaluate_every: {min(500, max(steps // 5, 1))}

search:
  type: evolution          # supernest list searchers
  evaluations: 600

budgets:                   # one exported subnet each; absolute, or a share of the dearest subnet
{cls.template.budgets}"""
