"""How well a bundle or a checkpoint grounds: asks it about a data set, scores the answers, draws the best and worst."""
