"""How much each layer's lower precision costs, and the cheapest choice that costs no more than it may."""
