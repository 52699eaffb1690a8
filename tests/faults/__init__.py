"""What fails beneath weft, and what loads it: the disk under its store, hostile callers, many clients at once."""
