"""The engine: every pass of a supernet from the description of its networks."""
