"""Contracts: what all plug-ins of a kind must do; `supernest check` runs them on those of an experiment, in seconds."""

from search_spaces import UserError

BUILT_IN = frozenset({"search_spaces", "supernet", "samplers", "search", "experiments"})


class ContractError(UserError):
    """A plug-in does not do what all of its kind must do."""


def is_plugin(*parts: object) -> bool:
    """Returns whether one of these objects, or its class, is defined outside of Supernest."""
    modules = [getattr(part, "__module__", None) or type(part).__module__ for part in parts]
    return any(module.partition(".")[0] not in BUILT_IN for module in modules)


def require(fulfilled: bool, key: str, text: str) -> None:
    """Refuses a plug-in that does not fulfil a part of its contract.

    Args:
        fulfilled: Whether the plug-in fulfils this part.
        key: Setting that names the plug-in.
        text: Problem, expected value, and what to do.

    Raises:
        ContractError: The plug-in does not fulfil the contract.
    """
    if not fulfilled:
        raise ContractError(f"{key}: {text}")
