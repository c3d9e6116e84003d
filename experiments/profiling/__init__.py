"""The profile stage: measures subnets on this device."""
