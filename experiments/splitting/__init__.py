"""How a trained supernet is best divided into sub-supernets, by gradients, at random or exhaustively."""
