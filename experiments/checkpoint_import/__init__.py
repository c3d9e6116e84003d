"""Checkpoints of `transformers`: into a supernet, and subnets back out; one file a model type."""

from experiments.checkpoint_import.model_type import MODEL_TYPES
from experiments.checkpoint_import.reading import Checkpoint, Imported, import_checkpoint, open_checkpoint
from experiments.checkpoint_import.writing import export_checkpoint, write_checkpoint

__all__ = [
    "MODEL_TYPES", "Checkpoint", "Imported", "export_checkpoint", "import_checkpoint", "open_checkpoint",
    "write_checkpoint",
]  # fmt: skip
