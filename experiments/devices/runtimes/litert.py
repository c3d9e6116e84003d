"""LiteRT on the CPU: the file that an export writes, preprocessing included; memory is counted from its operations."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np

from experiments.devices.measure import Memory, cores
from experiments.devices.runtime import RUNTIMES, FileRuntime, Network, with_weights
from experiments.user_input.extras import check_installed
from search_spaces.randomness import Purpose, stream
from supernet.pytorch.tflite import NEEDED, interpreter, memory, tflite_files, versions


@dataclass(frozen=True)
class Interpreted:
    """A file that is loaded, with its input set."""

    content: bytes
    interpreter: Any

    def __call__(self) -> None:
        """Runs it."""
        self.interpreter.invoke()

    @property
    def memory(self) -> Memory:
        """Bytes of the file and of its tensors; the interpreter tells no figure of its own."""
        return Memory(*memory(self.content))


@RUNTIMES.register("litert")
@dataclass(frozen=True)
class LiteRt(FileRuntime):
    """LiteRT's interpreter with XNNPACK."""

    name: ClassVar[str] = "litert"

    def __post_init__(self) -> None:
        check_installed("runtime litert", "litert", NEEDED)

    @property
    def version(self) -> str:
        return version("ai-edge-litert")

    @property
    def software(self) -> dict[str, str]:
        return {**super().software, **versions()}

    def build(self, networks: Sequence[Network]) -> list[Interpreted]:
        """Converts networks, all in one process, and loads them."""
        where = "runtime litert"
        files = tflite_files([(where, with_weights(one.subnet), one.batch_size) for one in networks])
        return [self.load(file.content, one) for file, one in zip(files, networks, strict=True)]

    def load(self, content: bytes, network: Network) -> Interpreted:
        loaded = interpreter(content, self.threads or cores())
        (given,) = loaded.get_input_details()
        rng = stream(0, Purpose.MEASURED_INPUTS)
        loaded.set_tensor(given["index"], rng.integers(0, 256, given["shape"], np.uint8))
        return Interpreted(content, loaded)
