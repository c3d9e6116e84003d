"""Layers: what stages compute with, and in which precision."""
