"""Identity of a run: the hash of the settings that decide what it computes, by which its files know one another.

It follows from the configuration alone: a run that is moved, renamed, killed, or computed by other workers keeps it,
and two runs of one configuration, which compute the same, share it.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Settings that may differ on a resume: they decide what is shown along the way, not what comes out (of a device or
# a parent, its hash decides; of the checkpoint that is searched, that of its weights, to which all exports are bound).
FREE_SETTINGS = frozenset(
    {"train.log_every", "train.checkpoint", "device.path", "device.min_tau", "supernet.parent.path"}
)
# Sections that no stage depends on which others build upon, and where the run is computed.
FREE_SECTIONS = ("rank.", "finetune", "ray")


ORIGIN = "origin"
"""What the report of an exported subnet calls the identity of its run and the hash of the supernet's weights."""


def is_free(key: str) -> bool:
    """Returns whether the setting of this dotted key may change when a run continues."""
    return key in FREE_SETTINGS or key.startswith(FREE_SECTIONS)


def run_identity(config: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of all settings that are not free, in hexadecimal.

    Args:
        config: The whole configuration, defaults included, as plain values.
    """
    return hashlib.sha256(json.dumps(_deciding(config, ""), sort_keys=True).encode()).hexdigest()


def _deciding(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        below = {name: f"{key}.{name}" if key else str(name) for name in value}
        return {name: _deciding(value[name], below[name]) for name in value if not is_free(below[name])}
    if isinstance(value, list | tuple):
        return [_deciding(item, key) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 1 and 1.0 are one setting
    return value
