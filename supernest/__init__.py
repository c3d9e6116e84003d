"""Supernest in Python: what the command line does, from a script or a notebook.

    import supernest as sn

    run = sn.run("my.yaml", out="runs/my")  # trains, searches and exports; calling it again resumes
    net = run.subnet("half")
    logits = net.predict(images)  # uint8[n, h, w, c]
    net.predict_files(["cat.jpg"])  # labels and probabilities

Names are imported when they are first used, so that `import supernest` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from supernest.own_packages import check_own_packages

if TYPE_CHECKING:
    from search_spaces.errors import UserError
    from supernest.checkpoints import import_checkpoint
    from supernest.experiment import Experiment, run
    from supernest.finished_run import Run
    from supernest.soups import soup
    from supernest.subnet import Subnet, load_subnet
    from supernet.flax_modules import elastic

__all__ = ["Experiment", "Run", "Subnet", "UserError", "elastic", "import_checkpoint", "load_subnet", "run", "soup"]

_MODULES = {
    "Experiment": "supernest.experiment",
    "Run": "supernest.finished_run",
    "Subnet": "supernest.subnet",
    "UserError": "search_spaces.errors",
    "elastic": "supernet.flax_modules",
    "import_checkpoint": "supernest.checkpoints",
    "load_subnet": "supernest.subnet",
    "run": "supernest.experiment",
    "soup": "supernest.soups",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'supernest' has no attribute {name!r}")
    check_own_packages()
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
