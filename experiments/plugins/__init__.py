"""Plug-ins beside the experiments that name them under `plugins`; nothing here is registered until one does."""
