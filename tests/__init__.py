"""What weft promises, executed."""
