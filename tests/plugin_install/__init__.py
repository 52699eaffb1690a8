"""weft as Docker installs it: the managed plugin from a registry, and what stays on a host, and goes."""
