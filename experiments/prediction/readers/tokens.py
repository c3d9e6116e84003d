"""Reader of task `tokens`: there is none; a language model writes text, by another command."""

from typing import NoReturn

from experiments.prediction.reader import READERS
from search_spaces import UserError
from supernet.export.subnet import Subnet


@READERS.register("tokens")
def refuse(subnet: Subnet) -> NoReturn:
    """Names the command for language models.

    Raises:
        UserError: Always.
    """
    raise UserError(
        "the network is a language model, which takes text and writes it. Use supernest generate SUBNET --prompt TEXT."
    )
