"""firewalld, by its D-Bus interface: our links are in a zone of ours, so that its closing reject does not meet them."""

from drivers.firewalld.backend import FirewalldBackend

__all__ = ["FirewalldBackend"]
