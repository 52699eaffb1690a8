"""weft's Docker half: the two plugin protocols, the use cases and the store. It never touches netlink."""

__version__ = "0.1.0"
