"""Souping: weights of several networks, or of several runs, averaged into one."""
