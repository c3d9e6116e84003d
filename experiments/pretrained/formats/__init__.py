"""Checkpoints of `transformers`: into a supernet, and subnets back out; one file a model type."""

from experiments.pretrained.formats.model_type import MODEL_TYPES
from experiments.pretrained.formats.reading import Checkpoint, Imported, import_checkpoint, open_checkpoint
from experiments.pretrained.formats.writing import export_checkpoint, write_checkpoint

__all__ = [
    "MODEL_TYPES", "Checkpoint", "Imported", "export_checkpoint", "import_checkpoint", "open_checkpoint",
    "write_checkpoint",
]  # fmt: skip
