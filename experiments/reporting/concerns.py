"""Concerns about a run that its figures alone do not show: what may be wrong, and what to do."""

import math

from experiments.reporting.run_facts import RunFacts

_TRUSTED_TAU = 0.7


def concerns(facts: RunFacts) -> list[str]:
    """Returns a sentence or two for each concern; none for a run without any."""
    found = [text for tag, text in sorted(facts.texts.items()) if tag.startswith("warnings/")]
    chance = facts.summary.chance
    best = min((c.error for c in facts.candidates if c.error is not None), default=None)
    if chance is not None and best is not None and best > chance * (1 - facts.objective.unlearned):
        found.append(
            f"The best candidate's {facts.objective.name} is {best:.3f}; guessing gives {chance:.3f}. The supernet has "
            "learned next to nothing: train longer, or with another learning rate, before you trust any figure here."
        )
    genes = {str(sorted(subnet.architecture.items())) for subnet in facts.subnets}
    if len(facts.subnets) > 1 and len(genes) == 1:
        found.append(
            f"One network answers all {len(facts.subnets)} budgets: no larger one was better. Train longer, search "
            "with more evaluations, or lower the budgets."
        )
    failed = sum(candidate.error is None for candidate in facts.candidates)
    if failed > len(facts.candidates) / 2:
        found.append(
            f"{failed:,} of {len(facts.candidates):,} candidates failed or stopped early. Look at the training's loss."
        )
    found += [over for subnet in facts.subnets if (over := subnet.network.over_limit)]
    found += _of_device(facts)
    tau = facts.summary.rank.estimates["kendall_tau"].value if facts.summary.rank else math.nan
    if tau < _TRUSTED_TAU / 2:
        found.append(
            f"The supernet's ranking agrees little with networks trained alone (Kendall's tau-b {tau:.2f}). Choose "
            "among several candidates by training each, or train the supernet longer."
        )
    return found


def _of_device(facts: RunFacts) -> list[str]:
    """Returns what to say of a device file that orders networks badly, where a budget limits what it predicts."""
    limited = {metric for limits in facts.budgets.values() for metric in limits}
    if facts.device is None or "latency_ms" not in limited:
        return []
    sizes = {subnet.network.predicted.batch_size for subnet in facts.subnets if subnet.network.predicted}
    held_out = {size: facts.device.accuracy[size] for size in sizes}
    return [
        f"The device file orders networks by latency with a Kendall's tau of {_or_none(tau)} only (batches of {size}): "
        "one that it says is within a limit may be over. Measure again on a quiet machine, in larger batches: "
        "supernest profile --batch-sizes 64."
        for size, of in sorted(held_out.items())
        if (tau := of.latency.kendall_tau) is None or tau < _TRUSTED_TAU
    ]


def _or_none(tau: float | None) -> str:
    return "none" if tau is None else f"{tau:.2f}"
