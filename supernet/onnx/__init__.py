"""ONNX: exported networks as files that ONNX Runtime loads, converted from the operations that JAX traces."""
