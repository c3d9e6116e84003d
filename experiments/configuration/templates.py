"""The commented experiment file that `supernest init` writes, for each family."""

from experiments.user_input.yaml_files import dump_yaml

_IMAGES = """\
data:
  source: digits           # 1,797 pictures that need no download; supernest list sources
  validation_fraction: 0.2 # held out from training; search compares subnets on it
  augmentation: {crop: 1}  # also flip, mixup, cutmix
"""

_TEXT = """\
data:
  source: text
  path: corpus.txt         # a .txt or .jsonl file, also .gz or .xz; or a directory of them
  context: 128             # tokens a sequence
  tokenizer: bytes         # a token a byte; or a tokenizer.json, or a directory with a tokenizer
  validation_fraction: 0.1 # the end of the text, held out from training; search compares subnets on it
"""

_SPACE = {
    "language": """\
space:
  family: language
  preset: small            # supernest list presets
  # Any field of the family can be set here, and then overrides the preset:
  # depth: [3, 4, 5, 6]
  # uniform: true          # all layers alike, as transformers can load them
""",
    "vit": """\
space:
  family: vit
  preset: small            # supernest list presets
  # Any field of the family can be set here, and then overrides the preset:
  # depth: [3, 4, 5, 6]
  # mlp_ratio: [1.0, 2.0, 3.0]
""",
    "mobilenet": """\
space:
  family: mobilenet
  preset: small            # supernest list presets
  # Any field of the family can be set here, and then overrides the preset:
  resolution: [8]          # pixels that the network sees; images are resized to it
  strides: [1, 2, 1]
""",
}

_TRAIN = {
    "language": """\
  optimizer: {type: adamw, learning_rate: 1.0e-3, weight_decay: 0.1, warmup_steps: 200, clip_norm: 1.0}
""",
    "vit": """\
  optimizer: {type: adamw, learning_rate: 2.0e-3, weight_decay: 0.05, warmup_steps: 200, clip_norm: 1.0}
  label_smoothing: 0.05
""",
    "mobilenet": """\
  optimizer: {type: sgd, learning_rate: 0.05, weight_decay: 3.0e-5, momentum: 0.9, warmup_steps: 200, clip_norm: 5.0}
  label_smoothing: 0.05
""",
}

FAMILIES = tuple(_SPACE)


def starter(family: str, name: str, file: str) -> str:
    """Returns a whole experiment file, with comments; on the digits data where the family takes images.

    Args:
        family: One of `FAMILIES`.
        name: Of the experiment.
        file: Where it is going to be, for the commands in its comments.
    """
    return f"""\
# An experiment: from data to a standalone network for each budget.
#   supernest check {file}
#   supernest run {file} --out runs/{name}
{dump_yaml({"name": name}).strip()}
seed: 0

{_TEXT if family == "language" else _IMAGES}
{_SPACE[family]}
supernet:
  sharing: entangled       # supernest list sharing

sampler:
  type: sandwich           # the largest, the smallest and random subnets at every step
  random_paths: 2

train:
  steps: 3000              # or epochs
  batch_size: 64
{_TRAIN[family]}\
  distillation: {{type: largest, weight: 0.5}}  # other subnets learn from the largest one
  ema: 0.995               # moving average of the weights, which search and export use; null for none
  checkpoint_every: 500
  evaluate_every: 500

search:
  type: evolution          # supernest list searchers
  evaluations: 600

budgets:                   # one exported subnet each; absolute, or a share of the dearest subnet
  full: {{macs: 100%}}
  half: {{macs: 50%}}
  quarter: {{macs: 25%}}
  # phone: {{params: 100k, macs: 40%}}
"""
