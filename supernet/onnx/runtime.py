"""ONNX Runtime: models run, compared with what they were made of, and text written with their cache."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from jaxtyping import Float, Int, Shaped


def session(model: onnx.ModelProto | bytes | str, threads: int = 0) -> onnxruntime.InferenceSession:
    """Loads a model on the CPU.

    Args:
        model: The model, its bytes, or its file.
        threads: Number of threads; 0 for ONNX Runtime's default.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    content = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run(
    loaded: onnxruntime.InferenceSession, examples: Shaped[np.ndarray, "n ..."], batch: int | None = None
) -> Shaped[np.ndarray, "n ..."]:
    """Outputs of examples, with nothing before them where the model takes earlier keys and values.

    Args:
        loaded: Session that `session` returned.
        examples: Along the first axis.
        batch: Batch size of the model, where it has one; the last batch is filled up.
    """
    first, *past = loaded.get_inputs()
    size, found = batch or max(len(examples), 1), []
    for start in range(0, len(examples), size):
        part = examples[start : start + size]
        filled = np.concatenate([part, np.repeat(part[:1], (batch or len(part)) - len(part), axis=0)])
        filled = filled.astype(np.int64) if first.type == "tensor(int64)" else filled
        feed = {first.name: filled, **empty_cache(past, len(filled))}
        found.append(np.asarray(loaded.run([loaded.get_outputs()[0].name], feed)[0])[: len(part)])
    return np.concatenate(found)


def empty_cache(past: Sequence[Any], batch: int) -> dict[str, Float[np.ndarray, "b _g 0 k"]]:
    """Keys and values of no tokens, for the inputs of a model that takes earlier ones."""
    return {one.name: np.zeros((batch, one.shape[1], 0, one.shape[3]), np.float32) for one in past}


def generated(
    loaded: onnxruntime.InferenceSession, prompt: Int[np.ndarray, "b t"], count: int
) -> Int[np.ndarray, "b n"]:
    """Generates the likeliest tokens int64[b, count] after a prompt int[b, t] with the model's cache.

    Args:
        loaded: Session of a causal language model that `session` returned.
        prompt: At least one token each.
        count: Number of tokens to generate.
    """
    past = empty_cache(loaded.get_inputs()[1:], len(prompt))
    given, found = prompt.astype(np.int64), []
    for _ in range(count):
        logits, *present = (np.asarray(one) for one in loaded.run(None, {"input_ids": given, **past}))
        given = logits[:, -1].argmax(axis=-1).astype(np.int64)[:, None]
        found.append(given)
        past = dict(zip(past, present, strict=True))
    return np.concatenate(found, axis=1)


def versions() -> Mapping[str, str]:
    """Versions of what writes and checks files."""
    return {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
