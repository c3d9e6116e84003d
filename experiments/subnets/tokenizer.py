"""The tokenizer of an exported network, compared with the one of data: a token is what its tokenizer calls so."""

from pathlib import Path

from experiments.data.tokenizer import BYTES, same_tokenizer
from search_spaces import UserError
from supernet.export.subnet import Subnet


def tokenizer_of(subnet: Subnet, directory: Path) -> str | None:
    """Returns the name of a network's tokenizer for `load_tokenizer`; None for networks that take images."""
    name = subnet.config.get("tokenizer")
    return name if name is None or name == BYTES else str(directory / name)


def check_tokenizer(where: str, own: str | None, given: str | None) -> None:
    """Refuses a network on tokens of another tokenizer than its own.

    Args:
        where: The network in messages.
        own: The name of its tokenizer; nothing is compared if it has none.
        given: The name of the tokenizer of the data; None of data that are no text.

    Raises:
        UserError: The tokenizers differ.
    """
    if own is None or given is None or own == given:
        return
    if not same_tokenizer(own, given):
        raise UserError(
            f"{where}: its tokenizer is {own}, and that of the data, {given}, is another, whose tokens mean something "
            "else. Set data.tokenizer to the network's."
        )
