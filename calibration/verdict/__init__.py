"""What a lower precision costs in grounding and gains in speed and size, and whether that is within the budget."""
