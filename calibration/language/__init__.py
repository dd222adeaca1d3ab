"""Integers for the language model's weights, chosen by what flows through them."""
