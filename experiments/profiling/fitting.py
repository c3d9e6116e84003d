"""Fits: tables of what each piece of a space costs, how well they predict held-out networks, and the device file."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.devices.device_file import FORMAT, VERSION, Device, read_device
from experiments.devices.measurements import Measurement
from experiments.profiling.protocol import Protocol, Wanted
from experiments.records import Accuracy, DeviceIdentity, HeldOut
from experiments.records.plain import JsonObject
from search_spaces import Genes, SearchSpace
from search_spaces.piece_costs import fit_peak, fit_sum, left_out_error
from search_spaces.pieces import Pieces
from search_spaces.sealed_json import sealed
from supernet.storage.manifest import write_text_atomically


def write_device(
    out: Path,
    space: SearchSpace,
    identity: DeviceIdentity,
    protocol: Protocol,
    networks: tuple[Genes, Genes],
    found: Mapping[Wanted, Measurement],
) -> Device:
    """Fits the tables, and writes the device file.

    Args:
        out: The device file.
        space: The space.
        identity: Identity of the measurements.
        protocol: Method of the measurements.
        networks: Networks that `draw` returns.
        found: Measurements of all of them.

    Returns:
        The device file.
    """
    training, held_out = networks
    pieces, tables = Pieces(space), []
    for size in protocol.batch_sizes:
        fit_to, compare = ([found[tuple(row), size] for row in of.tolist()] for of in (training, held_out))
        tables.append({"batch_size": size, **_fitted(pieces, training, fit_to, held_out, compare)})
    content = {
        "format": FORMAT,
        "version": VERSION,
        "family": space.family,
        "space": space.fingerprint,
        **identity.as_json(),
        "protocol": dataclasses.asdict(protocol),
        "pieces": pieces.costs.tolist(),
        "tables": tables,
    }
    write_text_atomically(out, json.dumps(sealed(json.loads(json.dumps(content))), allow_nan=False) + "\n")
    return read_device(out)


def _fitted(
    pieces: Pieces, training: Genes, fit_to: Sequence[Measurement], held_out: Genes, compare: Sequence[Measurement]
) -> JsonObject:
    """The tables of one batch size, and how well they predict the held-out networks."""
    counts, held_counts = pieces.counts(training), pieces.counts(held_out)
    typical = float(np.median([one.reference_seconds for one in [*fit_to, *compare]]))

    def nanoseconds(measured: Sequence[Measurement]) -> np.ndarray:
        # A machine that was slower during one group was slower for the reference, too.
        return np.array([1e9 * one.seconds / one.reference_seconds * typical for one in measured])

    found: dict[str, object] = {}
    latency = fit_sum(counts, pieces.costs, nanoseconds(fit_to))
    found["latency_ns"] = latency.as_dict()
    fixed = fit_sum(counts, pieces.costs, np.array([float(one.fixed_bytes) for one in fit_to]))
    found["fixed_bytes"] = fixed.as_dict()
    lying_between = np.array([float(max(one.temporary_bytes, 1)) for one in fit_to])
    fit = min(
        (lambda c, m, of=of: of(c, pieces.costs, m) for of in (fit_peak, fit_sum)),
        key=lambda fit: left_out_error(fit, counts, lying_between),
    )
    temporary = fit(counts, lying_between)
    found["temporary_bytes"] = temporary.as_dict()
    truth = nanoseconds(compare)
    memory = np.array([float(one.fixed_bytes + one.temporary_bytes) for one in compare])
    of_latency = _accuracy(latency(held_counts), truth)
    of_memory = _accuracy(fixed(held_counts) + temporary(held_counts), memory)
    found["held_out"] = HeldOut(of_latency, of_memory, len(compare)).as_json()
    return found


def _accuracy(predicted: np.ndarray, measured: np.ndarray) -> Accuracy:
    from scipy.stats import kendalltau

    errors = np.abs(predicted / measured - 1)
    tau = float(kendalltau(predicted, measured)[0])  # type: ignore[arg-type]
    known = tau if np.isfinite(tau) else None
    return Accuracy(known, float(np.median(errors)), float(np.quantile(errors, 0.9)))
