"""Tasks: what a network takes, what its outputs mean, how far off they are; one file each, `TASKS` by name."""

from supernet.tasks.classes import Classes
from supernet.tasks.inputs import Input
from supernet.tasks.numbers import Numbers
from supernet.tasks.outputs import Measures, Outputs
from supernet.tasks.task import TASKS, Task

__all__ = ["TASKS", "Classes", "Input", "Measures", "Numbers", "Outputs", "Task"]
