"""weft's Linux half: what a network is made of, and how the host is brought there. It has never heard of Docker."""
