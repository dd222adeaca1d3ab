"""Readers of the files and folders that weights come in; `devil.model.weights.open_weights` picks among them."""
