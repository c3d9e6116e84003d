"""Devices: latency and memory measured on one, and files that hold them."""
