"""The gradient search stage: weights and architecture trained together."""
