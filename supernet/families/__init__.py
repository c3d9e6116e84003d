"""Families: the stages of each, and what embeds the input and reads the output."""
