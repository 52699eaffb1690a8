"""Networks backed by a Linux bridge."""
