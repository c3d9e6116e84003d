"""Early stopping of finetunings: steps and time saved, and what the chosen network loses by it.

Command: `python -m experiments.benchmarks.finetune_stopping --seeds 3 --json`

For each seed, a supernet is trained, and each of its exported networks is finetuned in several variants: once to the
end and once with `finetune.early_stopping`. The best network of each side on the validation split is chosen, as a user
would do, and evaluated on the test split. Runs are saved in --out, so the same command resumes. Times are those of
finetunings that ran in one call.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np

from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option, set_option
from experiments.configuration.experiment_config import ExperimentConfig, load_config
from experiments.configuration.finetune_section import FinetuneSection, FinetuneStoppingSection
from experiments.finetuning.settings import Finetuning
from experiments.finetuning.variants import finetune_variants, read_variants
from experiments.objective import OBJECTIVES
from experiments.pipeline.open_run import open_run
from experiments.pipeline.run import STAGES
from experiments.pipeline.run import run as run_stages
from experiments.process.interrupt import StopRequest, stop_on_signals
from experiments.records import FinetunedNetwork
from search_spaces.sealed_json import JsonObject

_HERE = Path(__file__).parent
_TIMES = "seconds.json"


@dataclass(frozen=True)
class Chosen:
    """The best of several finetunings by the validation split.

    Attributes:
        name: Name of the variant.
        validation: Its figure on the validation split.
        test: Its figure on the test split.
        steps: Training steps of all variants.
        planned_steps: Training steps of all variants without early stopping.
        stopped: Number of variants that ended early.
        seconds: Seconds of all variants.
    """

    name: str
    validation: float
    test: float
    steps: int
    planned_steps: int
    stopped: int
    seconds: float

    @classmethod
    def of(cls, names: Sequence[str], found: Sequence[FinetunedNetwork], seconds: float) -> "Chosen":
        """Chooses among finetuned networks."""
        sign = -1 if OBJECTIVES[found[0].objective].higher else 1
        best = int(np.argmin([sign * one.validation.after.value for one in found]))
        return cls(
            names[best], found[best].validation.after.value, found[best].test.after.value,
            sum(one.steps for one in found), sum(one.planned_steps for one in found),
            sum(one.stopped is not None for one in found), seconds,
        )  # fmt: skip


@click.command(cls=Benchmark)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=_HERE / "panels" / "soups.yaml",
    help="Experiment file.  [default: experiments/benchmarks/panels/soups.yaml (digits)]",
)
@click.option(
    "--variants",
    type=click.Path(path_type=Path),
    default=_HERE / "variants" / "soups.yaml",
    help="List of finetuning variants.  [default: experiments/benchmarks/variants/soups.yaml]",
)
@click.option(
    "--steps",
    default=400,
    show_default=True,
    type=click.IntRange(1),
    help="Number of training steps of a complete finetuning.",
)
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1), help="Number of supernets.")
@click.option("--tolerance", default=0.005, show_default=True)
@click.option("--confidence", default=0.9, show_default=True)
@click.option("--evaluations", default=20, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/finetune_stopping"), show_default=True)
@set_option
@json_option
def main(
    config: Path, variants: Path, steps: int, seeds: int, tolerance: float, confidence: float, evaluations: int,
    out: Path, overrides: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """Trains supernets and finetunes their networks with and without early stopping; runs are saved in --out."""
    rule = FinetuneStoppingSection(tolerance=tolerance, confidence=confidence, evaluations=evaluations)
    pairs: dict[str, list[tuple[Chosen, Chosen]]] = {}
    with stop_on_signals() as stop:
        for seed in range(seeds):
            loaded = load_config(config, (*overrides, f"seed={seed}"))
            with open_run(out / str(seed), loaded, STAGES, loaded.name) as directory:
                run_stages(loaded, directory, STAGES, quiet=False)
            for name in (budget.name for budget in loaded.budgets):
                source = out / str(seed) / "subnets" / name
                both = [_tuned(loaded, source, variants, steps, one, stop) for one in (None, rule)]
                pairs.setdefault(name, []).append((both[0], both[1]))
    show({"seeds": seeds, "steps": steps, **{name: summary(found) for name, found in pairs.items()}}, as_json)


def _tuned(
    config: ExperimentConfig, source: Path, variants: Path, steps: int, rule: FinetuneStoppingSection | None,
    stop: StopRequest,
) -> Chosen:  # fmt: skip
    """Finetunes a network in several variants under a rule, and chooses the best."""
    config = config.model_copy(update={"finetune": FinetuneSection(early_stopping=rule)})
    kind = "whole" if rule is None else f"{rule.tolerance}_{rule.confidence}_{rule.evaluations}"
    out = source.parent.parent / "tuned" / f"{source.name}_{variants.stem}_{steps}_{kind}"
    listed = read_variants(variants, Finetuning(source, out, config, config.name, steps))
    began, times = time.perf_counter(), out / _TIMES
    found = finetune_variants(listed, stop, quiet=False)
    if not times.exists():
        times.write_text(json.dumps(time.perf_counter() - began))
    return Chosen.of([variant.name for variant in listed], found, json.loads(times.read_text()))


def summary(pairs: Sequence[tuple[Chosen, Chosen]]) -> JsonObject:
    """Returns the figures of one network over seeds: shares of steps and time, gains of the early choice."""
    gains = {
        split: np.array([getattr(early, split) - getattr(whole, split) for whole, early in pairs])
        for split in ("validation", "test")
    }
    deviation = {split: float(values.std(ddof=1)) if len(values) > 1 else 0.0 for split, values in gains.items()}
    spread = float(np.std([whole.test for whole, _ in pairs], ddof=1)) if len(pairs) > 1 else 0.0
    return {
        "share of steps": round(
            sum(early.steps for _, early in pairs) / sum(early.planned_steps for _, early in pairs), 3
        ),
        "share of time": round(sum(early.seconds for _, early in pairs) / sum(whole.seconds for whole, _ in pairs), 3),
        "same choice": sum(whole.name == early.name for whole, early in pairs),
        **{f"gain, {split}": [round(float(gains[split].mean()), 4), round(deviation[split], 4)] for split in gains},
        "spread of whole ones over seeds, test": round(spread, 4),
        "choices": [[asdict(whole), asdict(early)] for whole, early in pairs],
    }


if __name__ == "__main__":
    main()
