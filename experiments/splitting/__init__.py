"""Division of a trained supernet into sub-supernets, by gradients, at random or exhaustively."""
