"""The kernel's backend on the real kernel."""
