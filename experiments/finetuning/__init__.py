"""Finetuning: an exported network trained on, and exported again."""
