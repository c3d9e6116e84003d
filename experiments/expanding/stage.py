"""Expansion of a trained run: an experiment with plain weights, whose layers start from the blocks of the run."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import jax

from experiments.configuration.experiment_config import config_of, load_config
from experiments.experiment import build_experiment
from experiments.records.plain import JsonObject
from experiments.splitting.choice import refuse_existing
from experiments.storage.run_files import CONFIG, is_run
from experiments.training.parent import parent_of
from experiments.user_input.yaml_files import dump_yaml
from search_spaces import UserError
from supernet.engine.supernet import Params
from supernet.sharing.expansion import LayerExpansion
from supernet.storage.manifest import write_text_atomically


@dataclass(frozen=True)
class Expansion:
    """An experiment that was written.

    Attributes:
        sharing: Sharing scheme of the run.
        depth: Number of layers of the new network.
        blocks: Number of blocks of the run.
        stored_params: Number of weights of the run, those outside the layers included.
        params: Number of weights of the new network's largest size.
        file: The experiment file.
    """

    sharing: str
    depth: int
    blocks: int
    stored_params: int
    params: int
    file: str

    def as_json(self) -> JsonObject:
        """Returns it as `--json` prints it."""
        return json.loads(json.dumps(asdict(self)))

    def lines(self) -> list[str]:
        """Returns lines to read."""
        return [
            f"{self.sharing}: {self.depth} layers from {self.blocks} blocks; {self.params:,} weights from "
            f"{self.stored_params:,} stored ones.",
            self.file,
        ]


def expand(run: Path, depth: int, out: Path | None) -> Expansion:
    """Writes the experiment of a network that starts from the blocks of a run.

    All settings but the depth and the sharing are those of the run.

    Args:
        run: Run directory with a scheme that expands blocks.
        depth: Number of layers of the new network.
        out: Experiment file to write; named after the run and the depth when None.

    Raises:
        UserError: There is no such run, it is not trained or shares weights in another way, its blocks cannot be
            expanded to the depth, or the file exists.
    """
    if not is_run(run):
        raise UserError(f"{run}: is no run. Give the directory of a trained run.")
    experiment = build_experiment(load_config(run / CONFIG))
    sharing, config = experiment.net.sharing, experiment.config
    if not isinstance(sharing, LayerExpansion):
        raise UserError(
            f"{run}: has sharing {config.supernet.sharing}. Give a run with linear_expansion or stage_expansion."
        )
    sharing.check_depth(depth, "--depth")
    out = out or Path(f"{config.name}_{depth}_layers.yaml")
    refuse_existing(out)
    tree = config.as_dict()
    space = {**tree["space"], sharing.stack.depth: [depth]}
    supernet = {"sharing": "entangled", "parent": str(run.absolute())}
    tree = {**tree, "name": out.stem, "space": space, "supernet": supernet}
    expanded = build_experiment(config_of(tree, Path.cwd(), str(out)), experiment.data)
    parent_of(expanded)
    write_text_atomically(out, dump_yaml(tree))
    return Expansion(
        config.supernet.sharing, depth, sharing.blocks, _size(experiment.net.shapes), _size(expanded.net.shapes),
        str(out),
    )  # fmt: skip


def _size(params: Params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
