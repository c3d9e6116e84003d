"""Reader of task `pairs`: there is none; a network that translates is measured on pairs, by another command."""

from typing import NoReturn

from experiments.prediction.reader import READERS
from search_spaces import UserError
from supernet.export.subnet import Subnet


@READERS.register("pairs")
def refuse(subnet: Subnet) -> NoReturn:
    """Names the command for networks that translate.

    Raises:
        UserError: Always.
    """
    raise UserError(
        "the network translates, and is given a sentence with its translation. Use supernest evaluate SUBNET --data "
        "EXPERIMENT."
    )
