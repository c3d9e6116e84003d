"""The search stage: candidates asked for, evaluated and archived."""
