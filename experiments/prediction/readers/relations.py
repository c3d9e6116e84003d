"""Reader of task `relations`: there is none; a network that imitates attention has no task yet."""

from typing import NoReturn

from experiments.prediction.reader import READERS
from search_spaces import UserError
from supernet.export.subnet import Subnet


@READERS.register("relations")
def refuse(subnet: Subnet) -> NoReturn:
    """Names the command that gives the network a task.

    Raises:
        UserError: Always.
    """
    raise UserError("the network has no task yet. Train it on labelled texts: supernest finetune SUBNET --data YAML")
