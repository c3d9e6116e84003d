"""Progress where the output is no terminal: lines, one every half minute, which do not disturb what else is said."""

import contextlib
import os
import sys
from threading import Event
from types import SimpleNamespace

import pytest
from tqdm import TqdmWarning, tqdm

from experiments.process import progress
from experiments.process.progress import progress_bar


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that have passed, which tests change."""
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_line_every_half_minute_and_none_for_what_is_soon_over(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_bar(total=10, desc="train", unit="step", quiet=False) as bar:
        for second in range(0, 100, 10):
            clock[0] = second
            bar.update()
            bar.set_postfix(loss="0.5")
            if second == 40:
                tqdm.write("warning: something", file=sys.stderr)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        "train: 4 of 10 steps", "warning: something", "train: 7 of 10 steps", "train: 10 of 10 steps",
    ]  # fmt: skip
    assert lines[2].endswith(", loss=0.5")
    for _ in progress_bar([1, 2], desc="export", unit="subnet", quiet=False):
        clock[0] += 10
    assert capsys.readouterr().err == ""


def test_quiet_says_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(total=2, desc="train", unit="step", quiet=True) as bar:
        clock[0] = 100
        bar.update()
    assert capsys.readouterr().err == ""


def test_lines_go_on_while_a_program_is_compiled(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Event()
    monkeypatch.setattr(progress, "print", lambda line, **_: (print(line, file=sys.stderr), said.set()), raising=False)
    with progress_bar(total=2, desc="train", unit="step", quiet=False) as bar:
        bar.set_description_str("train (compiling program 1 of 3, once)")
        clock[0] = 31
        assert said.wait(20)
    assert capsys.readouterr().err.startswith("train (compiling program 1 of 3, once): 0 of 2 steps")


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="pseudo-terminals of POSIX")
def test_a_terminal_without_a_size_shows_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, its = os.openpty()  # 0 columns, as in a container that is started without a size
    with open(its, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with progress_bar(total=2, desc="train", unit="step", quiet=False) as bar:
            bar.set_postfix(loss="0.5")
            bar.update(2)
        monkeypatch.undo()
    shown = b""
    with contextlib.suppress(OSError):  # its end is closed
        while read := os.read(mine, 10_000):  # what was written arrives in pieces
            shown += read
    os.close(mine)
    assert b"train: 100%" in shown
    assert b"loss=0.5" in shown


@pytest.mark.parametrize("kernel", [True, False])
def test_a_notebook_has_bars_of_its_own(kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As text where there is no ipywidgets; IPython in a terminal is no notebook."""
    shell = SimpleNamespace(config={"IPKernelApp": {}} if kernel else {})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    if kernel:
        monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    for name in [name for name in sys.modules if name in ("tqdm.auto", "tqdm.autonotebook", "tqdm.notebook")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.warns(TqdmWarning, match="IProgress not found") if kernel else contextlib.nullcontext():
        bar = progress_bar(total=2, desc="train", unit="step", quiet=False)
    with bar:
        bar.set_description_str("train (compiling program 1 of 3, once)")
        bar.update()
        bar.set_postfix(loss="0.5")
        assert str(bar).startswith("train (compiling program 1 of 3, once)")
        assert isinstance(bar, progress._Lines) is not kernel
    assert progress_bar(total=2, desc="train", unit="step", quiet=True).disable
