"""Profile of a step or an evaluation: time of the compiled instructions by kind, from XLA's profiler.

Command: `python -m experiments.benchmarks.profile --family vit --json`

Sizes are those of `stepper`; an evaluation has 8 batches. Instructions belong to the scope that a layer names
(attention, normalisation, depthwise); others are matrix products, copies (slices, pads, transpositions), or
elementwise. The update counts as optimiser. Shares are shares of the time of a step; when several instructions run at
once, the time is divided among them. `host` is the time when no known instruction runs. Processor seconds and page
faults are those of a step without tracing.
"""

import re
import resource
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, cast

import click
import jax
import numpy as np

from experiments.benchmarks.output import Benchmark, show
from experiments.benchmarks.stepper import SETTINGS, Stepper, noise
from experiments.benchmarks.timing import seconds
from experiments.commands.options import json_option
from experiments.process.compilation import tidy_after_compilation
from experiments.process.freed_memory import keep_freed_memory
from search_spaces import SearchSpace, build_space
from search_spaces.sealed_json import JsonObject
from supernet.engine.supernet import build_supernet
from supernet.training.evaluation import Evaluator

_SCOPES = ("attention", "normalisation", "depthwise")
_COPIES = frozenset(
    {"slice", "pad", "concatenate", "transpose", "reshape", "dynamic_slice", "dynamic_update_slice", "broadcast_in_dim",
     "squeeze", "copy", "gather", "rev"}
)  # fmt: skip
_PRODUCTS, _PARTS = ("dot", "convolution"), 'outer_dimension_partitions":["'
_CONTAINERS = frozenset({"while", "conditional", "call"})
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = .*? ([\w\-]+)\(")
_NAMED = re.compile(r'op_name="([^"]*)"')
_CALLED = re.compile(r"calls=%?([\w.\-]+)")
_COMPUTATION = re.compile(r"^%?([\w.\-]+) .*\{$")


class Instruction(NamedTuple):
    """Instruction of a compiled program.

    Attributes:
        kind: Kind of its work: a scope of the layers, "gemm", "copies", "elementwise" or "container" (runs others).
        parallel: Whether it is handed to other threads, and its own event ends before they do.
    """

    kind: str
    parallel: bool


class Event(NamedTuple):
    """Execution of an instruction.

    Attributes:
        start: Start in nanoseconds.
        end: End in nanoseconds.
        kind: Kind as in `Instruction`, or "optimiser".
    """

    start: float
    end: float
    kind: str


@click.command(cls=Benchmark)
@click.option("--family", type=click.Choice(sorted(SETTINGS)), default="vit", show_default=True)
@click.option(
    "--steps", default=5, show_default=True, help="Number of steps; each is a step of another random network."
)
@click.option("--evaluation", is_flag=True, help="Profile evaluations instead of training steps.")
@click.option(
    "--give-back", is_flag=True, help="Let the C library return freed memory to the system, as it does by default."
)
@click.option(
    "--holes", is_flag=True, help="Leave the free memory between the blocks that compilation allocates unfilled."
)
@json_option
def main(family: str, steps: int, evaluation: bool, give_back: bool, holes: bool, as_json: bool) -> None:
    """Runs the benchmark."""
    if not give_back:
        keep_freed_memory(family)
    if not holes:
        tidy_after_compilation()
    preset, settings, batch = SETTINGS[family]
    space = build_space(family, preset, settings)
    work = (Evaluation if evaluation else Training)(space, batch)
    rows = space.sample(np.random.default_rng(0), steps)
    show({"family": family, "batch": batch, **measure(work, rows)}, as_json)


class Training:
    """Training steps on random data."""

    def __init__(self, space: SearchSpace, batch: int) -> None:
        self._stepper = Stepper.on_noise(space, batch)

    def __call__(self, row: np.ndarray) -> None:
        """Runs a step of a network."""
        jax.block_until_ready(self._stepper(row))

    def program(self, row: np.ndarray) -> str:
        """Returns the text of the compiled gradient program."""
        function, arguments, static = self._stepper.gradient(row)
        return function.lower(*arguments, **static).compile().as_text() or ""


class Evaluation:
    """Evaluations on random data."""

    def __init__(self, space: SearchSpace, batch: int) -> None:
        net, data = build_supernet(space), noise(space, batch)
        self._params = net.init(jax.random.key(0))
        labels = data["validation_labels"].astype(np.int32)
        self._evaluator = Evaluator(net, data["validation"], labels, batch, data["x"][None])
        self._compiled: Any = self._evaluator.program
        self._evaluator.program = cast(Any, self._recorded)
        self._call: tuple[tuple, Mapping[str, Any]] = (), {}

    def _recorded(self, *arguments: Any, **static: Any) -> Any:
        self._call = arguments, static
        return self._compiled(*arguments, **static)

    def __call__(self, row: np.ndarray) -> None:
        """Runs an evaluation of a network."""
        self._evaluator(self._params, row[None])

    def program(self, row: np.ndarray) -> str:
        """Returns the text of the compiled program."""
        self(row)
        arguments, static = self._call
        return self._compiled.lower(*arguments, **static).compile().as_text()


def measure(work: Training | Evaluation, rows: np.ndarray) -> JsonObject:
    """Measures all figures over the networks of `rows`."""
    totals: dict[str, float] = {}
    taken, used, faults = [], [], []
    for row in rows:
        known = instructions(work.program(row))
        work(row)
        with tempfile.TemporaryDirectory() as scratch:
            before = resource.getrusage(resource.RUSAGE_SELF)
            work(row)
            after = resource.getrusage(resource.RUSAGE_SELF)
            used.append((after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime))
            faults.append(after.ru_minflt - before.ru_minflt)
            with jax.profiler.trace(scratch):
                taken.append(seconds(lambda row=row: work(row)))
            shared = divided(events(Path(scratch), known))
        shared["host"] = max(1e9 * taken[-1] - sum(shared.values()), 0.0)
        for kind, value in shared.items():
            totals[kind] = totals.get(kind, 0.0) + value
    whole = sum(totals.values())
    shares = {kind: round(totals[kind] / whole, 4) for kind in sorted(totals, key=lambda kind: -totals[kind])}
    return {
        "ms": 1e3 * median(taken),
        "user_seconds": median(user for user, _ in used),
        "system_seconds": median(system for _, system in used),
        "page_faults": median(faults),
        "shares": shares,
    }


def instructions(program: str) -> dict[str, Instruction]:
    """Reads the instructions of a compiled program by name from its text."""
    products, found, computation = set(), {}, ""
    for line in program.splitlines():
        if opened := _COMPUTATION.match(line):
            computation = opened[1]
        elif (instruction := _INSTRUCTION.match(line)) and instruction[2] in _PRODUCTS:
            products.add(computation)
    for line in program.splitlines():
        if instruction := _INSTRUCTION.match(line):
            name, operation = instruction.groups()
            called, named = _CALLED.search(line), _NAMED.search(line)
            multiplies = operation in _PRODUCTS or (called is not None and called[1] in products)
            kind = _kind(operation, named[1] if named else "", multiplies)
            found[name] = Instruction(kind, operation in _PRODUCTS or _PARTS in line)
    return found


def _kind(operation: str, named: str, multiplies: bool) -> str:
    if operation in _CONTAINERS:
        return "container"
    scope = next((scope for scope in _SCOPES if scope in named), None)
    if scope is not None:
        return scope
    if multiplies:
        return "gemm"
    return "copies" if operation == "copy" or named.rpartition("/")[2] in _COPIES else "elementwise"


def events(directory: Path, known: Mapping[str, Instruction]) -> Iterator[Event]:
    """Reads the executed instructions of a trace; those of the update count as optimiser."""
    (file,) = directory.glob("**/*.xplane.pb")
    begun: dict[int, tuple[str, str, float, float]] = {}
    ended: dict[int, float] = {}
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" in stats and "_p" in stats:
                    begun[stats["_p"]] = stats["hlo_module"], stats["hlo_op"], event.start_ns, event.end_ns
                elif event.name.startswith("end: "):
                    ended[stats["_c"]] = event.end_ns
    for number, (module, name, start, end) in begun.items():
        if "update" in module:
            yield Event(start, end, "optimiser")
        elif name in known and known[name].kind != "container":
            yield Event(start, ended.get(number, end) if known[name].parallel else end, known[name].kind)


def divided(found: Iterator[Event]) -> dict[str, float]:
    """Returns the nanoseconds of each kind; several instructions at once share the time."""
    moments = sorted(
        moment for event in found for moment in ((event.start, 1, event.kind), (event.end, -1, event.kind))
    )
    running: Counter[str] = Counter()
    totals: dict[str, float] = {}
    before = 0.0
    for moment, change, kind in moments:
        active = sum(running.values())
        for one, count in running.items():
            totals[one] = totals.get(one, 0.0) + ((moment - before) * count / active if active else 0.0)
        running[kind] += change
        before = moment
    return totals


if __name__ == "__main__":
    main()
