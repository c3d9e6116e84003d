"""The rank stage: how well inherited weights order a panel of architectures."""
