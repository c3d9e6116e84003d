"""Damages files of a run and of its exports, and checks that commands refuse them in one line or are not misled.

Command: `python -m experiments.benchmarks.damage --cases 500 --json`

Two small experiments are run. In each case one file of the first run directory is flipped, truncated, emptied, deleted,
rewritten, replaced by the second run's file, or changed together with its manifest. Then a command that reads the file
must end with exit code 2 and lines that begin with `error:`, or with 0 and the results of the undamaged run. A changed
export with a matching manifest is a valid export that only its run contradicts; such a case counts as a fault only if
it ends in a traceback.
"""

import contextlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from experiments import cli
from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option
from supernet.storage.manifest import MANIFEST, write_manifest

KINDS = ("flip", "truncate", "empty", "delete", "rewrite", "exchange", "refit")
_YAML = """\
space: {family: vit, preset: small, depth: [1, 2], width: [16, 32], heads: [1, 2]}
train: {steps: 4, batch_size: 16, checkpoint_every: 2, evaluate_every: 4, diagnose_every: null}
search: {type: random, evaluations: 12, batch: 4}
budgets: {full: macs<=100%, half: macs<=60%}
export: {stablehlo: false}
"""
# Nothing is read from these but by TensorBoard, a browser, or a process that waits.
_UNREAD = ("tensorboard", "cache", "report.html", ".lock", "orbax")


@dataclass(frozen=True)
class Verdict:
    """Outcome of one damaged file.

    Attributes:
        file: The file, below the run directory.
        kind: Kind of the damage, one of `KINDS`.
        command: The command that read it.
        fault: Description of the fault; None if the damage was refused in one line or made no difference.
        refused: Whether it was refused.
    """

    file: str
    kind: str
    command: str
    fault: str | None
    refused: bool


class Damage:
    """Two finished runs below a directory, and commands that read the first one.

    Args:
        home: An empty directory.
    """

    def __init__(self, home: Path) -> None:
        self.home, self.run, self.other = home, home / "run", home / "other"
        config = home / "damage.yaml"
        config.write_text(_YAML, "utf-8")
        for out, seed in ((self.run, 0), (self.other, 1)):
            code, _, said = _called("run", str(config), "--out", str(out), "--set", f"seed={seed}", "--quiet")
            if code:
                raise SystemExit(f"the undamaged run ended with {code}: {said}")
        self._whole = shutil.copytree(self.run, home / "whole")
        self._expected = {name: self._outcome(name)[1] for name in ("export", "evaluate", "show", "report")}

    @property
    def files(self) -> list[str]:
        """Files below the run directory that commands read."""
        names = (str(path.relative_to(self._whole)) for path in sorted(self._whole.rglob("*")) if path.is_file())
        return [name for name in names if not set(_UNREAD) & set(Path(name).parts)]

    def judge(self, file: str, kind: str, which: random.Random, command: str | None = None) -> Verdict:
        """Damages a file, calls a command that reads it, and puts the run back.

        Args:
            file: One of `files`.
            kind: One of `KINDS`.
            which: Draws bytes and commands.
            command: The command; drawn when None.
        """
        command = command or which.choice(
            ["evaluate", "export"] if file.startswith("subnets/half/") else ["export", "show", "report"]
        )
        path = self.run / file
        self._damage(path, kind, which)
        before = _files(self.run)
        try:
            code, found, said = self._outcome(command)
            fault = None
            lines = said.splitlines()
            if code == 2:
                kept = _files(self.run)
                if not lines or not all(line.startswith("error: ") for line in lines):
                    fault = f"exit code 2 with {said[-300:]!r}"
                elif any(kept.get(name) != content for name, content in before.items() if "cache" not in name):
                    fault = "a refusal has changed files"
            elif code:
                fault = f"exit code {code}: {said[-300:]!r}"
            elif found != self._expected[command] and not (kind == "refit" and file.startswith("subnets/")):
                fault = "another result"
            return Verdict(file, kind, command, fault, code == 2)
        finally:
            shutil.rmtree(self.run)
            shutil.copytree(self._whole, self.run)

    def _damage(self, path: Path, kind: str, which: random.Random) -> None:
        content = path.read_bytes()
        if kind == "delete":
            path.unlink()
            return
        if kind == "exchange":
            twin = self.other / path.relative_to(self.run)
            content = twin.read_bytes() if twin.is_file() else b""
        elif kind == "truncate":
            content = content[: which.randrange(len(content) + 1)]
        elif kind == "empty":
            content = b""
        elif kind == "rewrite":
            content = which.choice([b"{}", b"[]", b"null", b"\xff\x00", b"[" * 2000, b'{"a": 1}\n'])
        else:
            place = which.randrange(max(len(content), 1))
            flipped = bytes([content[place] ^ (1 << which.randrange(8))]) if content else b"x"
            content = content[:place] + flipped + content[place + 1 :]
        path.write_bytes(content)
        home = next((parent for parent in path.parents if (parent / MANIFEST).is_file()), None)
        if kind == "refit" and home is not None and path.name != MANIFEST:
            write_manifest(home)

    def _outcome(self, command: str) -> tuple[int, Any, str]:
        """Returns a command's exit code, its result, and its other output."""
        run, subnet = str(self.run), str(self.run / "subnets" / "half")
        arguments = {
            "export": ("export", run, "--json", "--quiet"),
            "evaluate": ("evaluate", subnet, "--data", "digits", "--json"),
            "show": ("export", run, "--budget", "macs<=50%", "--show", "--json"),
            "report": ("report", run, "--out", str(self.home / "report.html")),
        }[command]
        code, out, said = _called(*arguments)
        if code:
            return code, None, said
        if command == "report":
            return code, (self.home / "report.html").read_text("utf-8"), said
        weights = {str(path): path.read_bytes() for path in (self.run / "subnets").rglob("weights.safetensors")}
        return code, (json.loads(out), weights if command == "export" else None), said


def _called(*arguments: str) -> tuple[int, str, str]:
    """Runs a command in this process; a traceback is exit code 1, as it is on the command line."""
    out, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        try:
            code = cli.main(arguments)
        except Exception:
            traceback.print_exc()
            code = 1
    return code, out.getvalue(), said.getvalue()


def _files(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != ".lock"}


def sampled(damage: Damage, count: int, seed: int) -> Sequence[tuple[str, str]]:
    """Draws pairs of file and kind; every file and every kind is used before any is used again."""
    which, files = random.Random(seed), damage.files
    pairs: list[tuple[str, str]] = []
    while len(pairs) < count:
        kinds = [*KINDS]
        which.shuffle(kinds)
        which.shuffle(files)
        pairs += [(file, kinds[i % len(kinds)]) for i, file in enumerate(files)]
    return pairs[:count]


@click.command(cls=Benchmark)
@click.option("--cases", default=500, show_default=True, help="Number of damaged files.")
@click.option(
    "--seed", default=0, show_default=True, help="Seed of the files, the kinds and the positions of the damage."
)
@json_option
def main(cases: int, seed: int, as_json: bool) -> None:
    """Runs the benchmark."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        damage, which = Damage(Path(scratch)), random.Random(seed)
        pairs = sampled(damage, cases, seed)
        verdicts = [damage.judge(*pair, which) for pair in tqdm(pairs, desc="damage", disable=None)]
    faults = [verdict for verdict in verdicts if verdict.fault]
    for verdict in faults:
        print(f"{verdict.file}: {verdict.kind}, {verdict.command}: {verdict.fault}", file=sys.stderr)
    figures = {
        "cases": len(verdicts),
        "refused": sum(verdict.refused for verdict in verdicts),
        "harmless": sum(not verdict.refused and not verdict.fault for verdict in verdicts),
        "faults": len(faults),
        "by_kind": dict(Counter(verdict.kind for verdict in verdicts)),
    }
    show(figures, as_json)
    if faults:
        sys.exit(1)


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
