"""Evolution strategies with perturbations of low rank: perturbed passes, populations, and the update."""
