"""Real dockerds, each in a node of its own: one case per row, and every restart and kill."""
