"""ONNX Runtime on the CPU: the file that an export writes, preprocessing included; memory is counted from its graph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from experiments.devices.measure import Memory, cores
from experiments.devices.runtime import RUNTIMES, FileRuntime, Network, with_weights
from experiments.user_input.extras import check_installed
from search_spaces.randomness import Purpose, stream

if TYPE_CHECKING:
    import onnx

NEEDED = ("onnx", "onnxruntime")


@dataclass(frozen=True)
class Session:
    """A model that is loaded, and its inputs."""

    model: "onnx.ModelProto"
    session: Any
    feed: Mapping[str, np.ndarray]

    def __call__(self) -> None:
        """Runs it."""
        self.session.run(None, self.feed)

    @property
    def memory(self) -> Memory:
        """Bytes of the graph's tensors; ONNX Runtime tells no figure of its own."""
        from supernet.onnx.memory import memory

        return Memory(*memory(self.model, self.feed))


@RUNTIMES.register("onnxruntime")
@dataclass(frozen=True)
class OnnxRuntime(FileRuntime):
    """ONNX Runtime with its CPU provider."""

    name: ClassVar[str] = "onnxruntime"

    def __post_init__(self) -> None:
        check_installed("runtime onnxruntime", "onnx", NEEDED)

    @property
    def version(self) -> str:
        return version("onnxruntime")

    @property
    def software(self) -> dict[str, str]:
        return {**super().software, **{name: version(name) for name in NEEDED}}

    def build(self, networks: Sequence[Network]) -> list[Session]:
        """Writes networks as ONNX models of their batch size, and loads them."""
        return [self.load(onnx_model(one), one) for one in networks]

    def load(self, content: "onnx.ModelProto", network: Network) -> Session:
        from supernet.onnx.runtime import session

        loaded = session(content, self.threads or cores())
        return Session(content, loaded, random_feed(loaded, network))


def onnx_model(network: Network) -> "onnx.ModelProto":
    """Returns a network as an ONNX model of its batch size, with random weights where it has none.

    Raises:
        UserError: The network has an operation that ONNX lacks.
    """
    from supernet.onnx.network import Settings, onnx_network

    where = f"runtime onnxruntime: {network.subnet.config['family']} network"
    return onnx_network(where, with_weights(network.subnet), Settings(batch=network.batch_size))


def random_feed(loaded: Any, network: Network) -> dict[str, np.ndarray]:
    """Returns inputs for a loaded model, with nothing before them where it takes earlier keys and values."""
    from supernet.onnx.runtime import empty_cache

    first, *past = loaded.get_inputs()
    shape = (network.batch_size, *network.subnet.config["input"]["shape"])
    rng = stream(0, Purpose.MEASURED_INPUTS)
    examples = {
        "tensor(uint8)": lambda: rng.integers(0, 256, shape, np.uint8),
        "tensor(int64)": lambda: np.zeros(shape, np.int64),
    }.get(first.type, lambda: rng.uniform(0.01, 0.1, shape).astype(np.float32))()
    return {first.name: examples, **empty_cache(past, network.batch_size)}
