"""The commented experiment file that `supernest init` writes: its parts come from the family and a data source."""

from collections.abc import Sequence

from experiments.data import SOURCES
from experiments.user_input.yaml_files import dump_yaml
from search_spaces import FAMILIES, UserError


def starter(family: str, name: str, file: str, plugins: Sequence[str] = ()) -> str:
    """Returns a whole experiment file, with comments.

    Args:
        family: A registered family.
        name: Of the experiment.
        file: Where it is going to be, for the commands in its comments.
        plugins: Modules that it needs.

    Raises:
        UserError: No data source that the family takes has a template.
    """
    cls = FAMILIES[family]
    sources = (SOURCES[one] for one in SOURCES)
    data = next((source.template for source in sources if source.template and cls.takes(source.inputs)), None)
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
{dump_yaml({"name": name, **({"plugins": list(plugins)} if plugins else {})}).strip()}
seed: 0

{data}
space:
  family: {family}
{chosen}{cls.template.space}
supernet:
  sharing: entangled       # supernest list sharing

sampler:
  type: sandwich           # the largest, the smallest and random subnets at every step
  random_paths: 2

train:
  steps: 3000              # or epochs
  batch_size: 64
{cls.template.train}\
  distillation: {{type: largest, weight: 0.5}}  # other subnets learn from the largest one
  ema: 0.995               # moving average of the weights, which search and export use; null for none
  checkpoint_every: 500
  evaluate_every: 500

search:
  type: evolution          # supernest list searchers
  evaluations: 600

budgets:                   # one exported subnet each; absolute, or a share of the dearest subnet
{cls.template.budgets}"""
