"""Reader of task `labelled_text`: there is none; a network that classifies texts is measured on rows of tokens."""

from typing import NoReturn

from experiments.prediction.reader import READERS
from search_spaces import UserError
from supernet.export.subnet import Subnet


@READERS.register("labelled_text")
def refuse(subnet: Subnet) -> NoReturn:
    """Names the command for networks that classify texts.

    Raises:
        UserError: Always.
    """
    raise UserError(
        "the network classifies texts as rows of tokens, which files do not hold. Use supernest evaluate SUBNET --data "
        "EXPERIMENT, or predict in Python on what its tokenizer gives."
    )
