"""Checks mutated experiments: a refusal must be one line with file and key, end with exit code 2, and write nothing.

`python -m experiments.benchmarks.mutations --cases 5000 --json` runs `supernest check` on each; with `--quick` each
experiment is read, its space built and its bounds checked, but nothing is traced. The exit code is 1 if any case fails.
"""

import argparse
import contextlib
import copy
import io
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from search_spaces.sealed_json import JsonObject

_HANG, _ALARM = 10.0, 120  # seconds of processor time, and of the clock
_LONGEST = 1700
_BASES: tuple[JsonObject, ...] = (
    {"space": {"family": "vit", "preset": "small"}, "train": {"steps": 20}},
    {
        "name": "wide", "seed": 3, "plugins": [], "data": {"source": "digits", "validation_fraction": 0.2},
        "space": {"family": "vit", "preset": "small", "width": [16, 32], "depth": [1, 2], "patch_size": 4},
        "supernet": {"sharing": "entangled"}, "sampler": {"type": "sandwich", "random_paths": 2},
        "train": {
            "epochs": 2, "batch_size": 32, "path_batch": "whole", "accumulate": 1, "label_smoothing": 0.1, "ema": 0.9,
            "optimizer": {"type": "sgd", "learning_rate": 0.1, "betas": [0.8, 0.9], "clip_norm": 1.0},
            "distillation": {"type": "largest", "temperature": 2.0}, "checkpoint_every": 5,
        },
        "search": {"type": "evolution", "evaluations": 20, "population": 5, "mutation": 0.2},
        "gradient": {"type": "gdas", "settle": 0.2}, "evaluation": {"batch_size": 64, "calibration_batches": 2},
        "budgets": {"half": "macs<=50%", "few": {"params": "100k"}}, "export": {"stablehlo": False},
        "rank": {"panel": 5, "bins": 2, "bootstrap": 100, "cache": "panel"},
    },
    {
        "data": {"train_limit": 100, "augmentation": {"crop": 1, "flip": True, "mixup": 0.2}},
        "space": {"family": "mobilenet", "preset": "small", "resolution": [8, 12], "strides": [1, 2, 1]},
        "sampler": {"type": "attentive", "candidates": 2}, "train": {"steps": 50},
        "search": {"type": "nsga2", "evaluations": 10}, "ray": {"workers": 2, "cpus_per_worker": 1, "elastic": [1, 2]},
    },
    {
        "data": {"source": "text", "path": "text.txt", "context": 16, "cache": "tokens"},
        "space": {"family": "language", "preset": "small", "depth": [1, 2]},
        "sampler": {"type": "complexity_aware", "levels": 4}, "train": {"steps": 10, "precision": "bfloat16"},
        "search": {"type": "linas", "evaluations": 10, "inner": 50},
    },
)  # fmt: skip
_PLACE = r"error: (e\.yaml|\S*/e\.yaml|--set|digits|/.*?|[^ :]*text\.txt)\b.*: "
"""Beginning of a message: the experiment, the option, or what is wrong with the data, at their place."""
_RAW = (
    "null", "true", "yes", "no", "0", "-1", "1", "2", "3", "1000000", "1000000000", "10000000000", "1" + "0" * 30,
    "9" * 400, "-0.0", "0.5", "1.0e-300", "1.0e+300", ".inf", "-.inf", ".nan", "1e5", "1:30", "010", "0x10", "1_000",
    "2024-01-01", "2024-13-41", "''", "' '", "a", "..", "'../../x'", "/dev/zero", "/", "'a\\0b'", '"a\\0b"',
    '"\\ud800"', '"a\\nb"', "'" + "x" * 3000 + "'", "~nobody/x", "[]", "{}", "[1]", "[1, 2]", "[2, 1]", "[1, 1]",
    "[0]", "[[1]]", "[null]", "[true]", "['a', 1]", "{a: 1}", "{'': 1}", "[" * 100, "[" * 100 + "]" * 100,
    "&a b", "*a", "!!python/name:os.system ''", "!!binary aGk=", "!!set {a}", "=", "{? [1] : 2}", "'%'", "50%", "100k",
    "macs<=50%", "'macs<=0%'", "'macs<=1e400'", "latency_ms<=1", "auto", "digits", "parent", "os:system", "é", "‮",
    "[" + ", ".join(["1"] * 3000) + "]", "[8, 28000000]", "[8, 10000000000]", "[1, 60000]", "[16777216]",
)  # fmt: skip


@dataclass(frozen=True)
class Broken:
    """A case that broke a promise.

    Attributes:
        case: Number of the case; the same seed makes the same one.
        promise: The promise that was broken.
        text: The experiment.
        arguments: Options of the command.
        said: Output of the command, or the traceback.
    """

    case: int
    promise: str
    text: str
    arguments: tuple[str, ...]
    said: str


def mutated(rng: random.Random) -> tuple[str, tuple[str, ...]]:
    """Returns an experiment as YAML with one to three mutations, and options of the command line."""
    tree = copy.deepcopy(rng.choice(_BASES))
    text = yaml.safe_dump(tree, sort_keys=False)
    arguments: list[str] = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kind = rng.random()
        if kind < 0.5:
            text = _replaced(rng, tree, text)
        elif kind < 0.75:
            keys = rng.choice(_leaves(tree))
            arguments += ["--set", f"{'.'.join(keys)}={rng.choice(_RAW)}"]
        elif kind < 0.85:
            keys = rng.choice(_leaves(tree))
            name = "".join(rng.choice("abc._-'\"\n:[{&*é ") for _ in range(rng.randint(0, 6)))
            arguments += ["--set", f"{'.'.join([*keys[:-1], name])}={rng.choice(_RAW)}"]
        else:
            text = _damaged(rng, text)
    return text, tuple(argument for argument in arguments if "\0" not in argument)


def _leaves(tree: Any, keys: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(tree, dict) and tree:
        return [leaf for key, below in tree.items() for leaf in _leaves(below, (*keys, key))] + ([keys] if keys else [])
    return [keys]


def _replaced(rng: random.Random, tree: JsonObject, text: str) -> str:
    """Puts raw YAML in the place of a value."""
    keys = rng.choice(_leaves(tree))
    marked = copy.deepcopy(tree)
    at: Any = marked
    for key in keys[:-1]:
        if not isinstance(at.get(key), dict):
            return text
        at = at[key]
    at[keys[-1]] = "MARKED"
    return yaml.safe_dump(marked, sort_keys=False).replace("MARKED", rng.choice(_RAW), 1)


def _damaged(rng: random.Random, text: str) -> str:
    """Cuts, doubles, swaps or overwrites a piece of the text."""
    start = rng.randrange(len(text))
    end = min(len(text), start + rng.randint(1, 12))
    piece = rng.choice(("", text[start:end] * 2, rng.choice("\t:[]{},&*!|>'\"%@`#-?\0\x85\ufeff\U0001f600"), "\n"))
    return text[:start] + piece + text[end:] if rng.random() < 0.8 else text[:start]


def run(cases: int, seed: int = 0, quick: bool = False) -> tuple[list[Broken], Counter[int]]:
    """Checks mutated experiments in a separate directory.

    Args:
        cases: Number of cases.
        seed: Seed of the mutations.
        quick: Whether to read, build and bound experiments only.

    Returns:
        The cases that broke a promise, and the number of cases by exit code.
    """
    broken, codes, path = [], Counter(), list(sys.path)
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        Path("text.txt").write_text("To be, or not to be, that is the question. " * 200, "utf-8")
        for case in range(cases):
            text, arguments = mutated(random.Random(f"{seed} {case}"))
            Path("e.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
            before = _files()
            started = time.process_time()
            code, said = _checked(arguments, quick)
            taken = time.process_time() - started
            codes[code] += 1
            promise = _promise(code, said, taken, bool(code) and _files() != before)
            if promise is not None:
                broken.append(Broken(case, promise, text, arguments, said[-3000:]))
            sys.path[:] = path
            for made in sorted(_files() - {"e.yaml", "text.txt"}, reverse=True):
                (Path(made).rmdir if Path(made).is_dir() else Path(made).unlink)()
    return broken, codes


def _files() -> set[str]:
    return {str(path) for path in Path().rglob("*")}


def _checked(arguments: Sequence[str], quick: bool) -> tuple[int, str]:
    from experiments import cli

    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            with _alarm():
                code = _quickly(arguments) if quick else cli.main(["check", "e.yaml", *arguments])
        except Exception:
            return 1, traceback.format_exc()
    return code, errors.getvalue()


def _quickly(arguments: Sequence[str]) -> int:
    """Reads, builds and bounds the experiment, and prints errors as the command does."""
    from experiments.commands.experiment_file import errors_about_file, load
    from experiments.data.text import caches_written_last
    from experiments.experiment import build_experiment
    from experiments.pipeline.demands import check_demands
    from search_spaces import UserError

    try:
        with errors_about_file(Path("e.yaml")), caches_written_last():
            check_demands(build_experiment(load(Path("e.yaml"), arguments[1::2])))
    except UserError as error:
        sys.stderr.write("".join(f"error: {line}\n" for line in str(error).splitlines()))
        return 2
    return 0


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {_ALARM} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(_ALARM)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _promise(code: int, said: str, seconds: float, wrote: bool) -> str | None:
    """Returns the promise that a case broke, or None."""
    lines = said.splitlines()
    if code not in (0, 2):
        return "no traceback"
    if seconds > _HANG:
        return f"done within {_HANG:.0f} s"
    if code == 0:
        return None
    if wrote:
        return "a refusal writes nothing"
    if not lines or len(lines) > 6 or not all(line.startswith("error: ") for line in lines):
        return "one line for each problem"
    if not all(line.isprintable() and len(line) < _LONGEST for line in lines):
        return "lines that can be printed and read"
    if not all(re.match(_PLACE, line) for line in lines):
        return "file and key are named"
    return None


def main() -> int:
    """Runs the command; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, help="Number of mutated experiments.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the mutations.")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="Read each experiment, build its space and check its bounds, but trace no network.",
    )
    parser.add_argument("--json", action="store_true", help="Print the result as JSON.")
    given = parser.parse_args()
    started = time.perf_counter()
    broken, codes = run(given.cases, given.seed, given.quick)
    found = {
        "cases": given.cases, "accepted": codes[0], "refused": codes[2], "seconds": time.perf_counter() - started,
        "broken": [asdict(case) for case in broken],
    }  # fmt: skip
    if given.json:
        print(json.dumps(found))
    else:
        print(f"{given.cases} cases: {codes[0]} accepted, {codes[2]} refused, {len(broken)} broke a promise")
        for case in broken:
            print(f"\ncase {case.case}: {case.promise}: {case.arguments}\n{case.text}\n{case.said}")
    return 1 if broken else 0


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.exit(main())
