"""Serving: an exported network behind HTTP (extra `serve`): limits, batches of concurrent requests, metrics."""
