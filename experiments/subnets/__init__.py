"""Exported networks, used again: loaded with their plug-ins, their tokenizer, text that they write."""
