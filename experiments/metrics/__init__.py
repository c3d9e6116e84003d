"""Metrics: figures of networks that cost more than a forward pass, such as those of what a network writes."""

from experiments.metrics.metric import METRICS, Metric, checked

__all__ = ["METRICS", "Metric", "checked"]
