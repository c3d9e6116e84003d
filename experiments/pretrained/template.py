"""The experiment file that `supernest import` writes beside a supernet, to be looked through and changed."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from experiments.data.tokenizer import BYTES, may_be_bytes
from experiments.user_input.yaml_files import dump_yaml
from search_spaces import LanguageSpace

_SIZES = ("width", "depth", "kv_heads", "queries", "mlp_width")


def starter(
    space: LanguageSpace,
    name: str,
    file: Path,
    texts: Sequence[Path],
    tokenizer: str | None,
    new_head: bool = False,
    field: str = "text",
    bos: bool = True,
) -> str:
    """Returns a whole experiment: elastic fine-tuning under the frozen parent's guidance, a search, and two subnets.

    Args:
        space: The proposed space.
        name: Name of the imported checkpoint.
        file: Path of the experiment file.
        texts: Texts of the calibration, of which the first is trained on too; a name to be replaced when there are
            none.
        tokenizer: Its directory, relative to the file. When None, bytes are the tokens where there are as many, and
            otherwise it is a name to be replaced.
        new_head: The parent's head knows nothing, so the largest subnet of a step teaches in its place.
        field: Field of JSON lines that holds the text.
        bos: Whether texts begin with what the tokenizer puts before them.
    """
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", file.absolute().parent.name)
    sizes = dump_yaml({key: list(getattr(space, key)) for key in _SIZES}).replace("\n", "\n  ").rstrip()
    small, large = _budgets(space)
    masked = "" if space.causal else "  masked: 0.15             # hidden tokens, which are predicted\n"
    more = "" if field == "text" else "  " + dump_yaml({"field": field})
    more += "" if bos else "  bos: false               # texts do not begin with what the tokenizer puts first\n"
    tokenizer = tokenizer or (BYTES if may_be_bytes(space.vocabulary) else "tokenizer.json")
    teacher = "{type: external, teachers: [parent]}  # the network as it was imported"
    if new_head:
        teacher = "{type: largest, weight: 0.5}  # the parent's head is new, and cannot teach"
    path = dump_yaml({"path": str(texts[0].absolute()) if texts else "text.txt"}).rstrip()
    return f"""\
# {name} and smaller networks of its kind.
#   supernest check {file}
#   supernest run {file} --out runs/{stem}
#   supernest export runs/{stem} --format transformers
{dump_yaml({"name": stem}).rstrip()}
seed: 0
start: .                   # this directory: the space and the first weights

data:
  source: text             # .txt or .jsonl, a file or a directory
  {path}
  context: {space.context}
  tokenizer: {tokenizer}
{more}{masked}
space:                     # sizes may be left out, or added below the largest
  {sizes}
  uniform: true            # the same in all layers; false is a larger space, which transformers cannot express

sampler:
  type: sandwich           # the largest, the smallest and random subnets at every step
  random_paths: 2

train:
  steps: 1000
  batch_size: 8
  optimizer: {{type: adamw, learning_rate: 1.0e-4, weight_decay: 0.0, warmup_steps: 50, clip_norm: 1.0}}
  distillation: {teacher}
  checkpoint_every: 250
  evaluate_every: 250

search:
  type: nsga2
  evaluations: 300

budgets:                   # one exported subnet each; absolute, or a share of the dearest
  small: {{params: {small}%}}
  large: {{params: {large}%}}
"""


def _budgets(space: LanguageSpace) -> tuple[int, int]:
    """Two shares of the largest subnet's parameters, in percent, with room above the smallest's."""
    smallest, largest = space.cost(space.extremes)["params"].tolist()
    least = smallest / largest
    small, large = (math.ceil(100 * (least + share * (1 - least))) for share in (0.3, 0.65))
    return small, large
