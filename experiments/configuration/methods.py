"""The page of methods: what is implemented, of which paper, and how it differs, from the docstrings of the plug-ins."""

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping

from experiments.configuration.descriptions import summary
from samplers import SAMPLERS
from search import SEARCHERS
from search_spaces import FAMILIES
from supernet.gradient.relaxation import RELAXATIONS
from supernet.proxies import PROXIES
from supernet.sharing import SHARING

_HEAD = """\
# Methods, sources and status

<!-- Written by `supernest schema --format methods`; edit the docstrings of the plug-ins instead. -->

All of these run, are tested, and are named in an experiment file as in the first column. "As published" means that
nothing is known to differ. Figures that compare them are in [samplers](../results/samplers.md) and
[search](../results/search.md).
"""

_KINDS: Mapping[str, Mapping[str, type]] = {
    "Search spaces (`space.family`)": FAMILIES,
    "Weight sharing (`supernet.sharing`)": SHARING,
    "Samplers (`sampler.type`)": SAMPLERS,
    "Searchers (`search.type`)": SEARCHERS,
    "Relaxations of gradient search (`gradient.type`)": RELAXATIONS,
    "Zero-cost proxies (`rank.proxies`)": PROXIES,
}

_OTHERS = (
    ("successive halving (`search.halving`)", "search.halving"),
    ("predictors (`search.predictors`, `sampler.predictor`)", "search_spaces.predictor"),
    ("order from zero-cost proxies, in Python (`supernet.parzc`)", "supernet.parzc.predictor"),
    ("evolution strategy (`train.method: evolution_strategy`)", "supernet.evolution_strategy.population"),
    ("distillation (`train.distillation`)", "supernet.tasks.distillation"),
    ("exits (`train.exits`)", "supernet.engine.exits"),
    ("adaptive divergence (`train.distillation.loss: alpha`)", "supernet.tasks.divergences"),
    ("compression for clients (`federation.compression`)", "supernet.federation.compression"),
    ("merging of clients (`federation.compression`)", "supernet.federation.merging"),
    ("choice of clients and layers (`federation`)", "experiments.federation.choice"),
    ("order by importance (`supernest import --calibrate`)", "supernet.ordering.importance"),
)


def methods() -> str:
    """Returns the page in Markdown."""
    lines = [_HEAD]
    for title, registry in _KINDS.items():
        lines += [f"## {title}", "", "| name | method | source | status |", "|---|---|---|---|"]
        for name in registry:
            module = registry[name].__module__
            alone = sum(other.__module__ == module for other in registry.values()) == 1
            lines.append(_row(f"`{name}`", _first_line(module) if alone else summary(registry[name]), module, name))
        lines.append("")
    lines += ["## Others", "", "| name | method | source | status |", "|---|---|---|---|"]
    lines += [_row(name, _first_line(module), module, None) for name, module in _OTHERS]
    return "\n".join(lines) + "\n"


def _row(title: str, text: str, module: str, name: str | None) -> str:
    source, differs = _references(module, name)
    status = f"differs: {differs}" if differs else "as published" if source else "a baseline"
    return f"| {title} | {text} | {source or 'no paper'} | {status} |"


def _references(module: str, name: str | None) -> tuple[str, str]:
    """Returns the papers that a module names, and what it says differs; of several methods, those of `name`."""
    text = " ".join(_reference_lines(module, name))
    papers, _, differs = text.partition("Differs: ")
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", papers).strip(), differs.strip()


def _reference_lines(module: str, name: str | None) -> Iterator[str]:
    block = inspect.cleandoc(importlib.import_module(module).__doc__ or "").partition("References:\n")[2]
    inside = True
    for line in block.partition("\n\n")[0].splitlines():
        tagged = re.search(r"\(`(\w+)`\)\.$", line)
        inside = tagged is None or name in (None, tagged[1])
        if inside:
            yield line.strip()


def _first_line(module: str) -> str:
    return (importlib.import_module(module).__doc__ or "").partition("\n")[0]
