"""Two Docker hosts with a stock Debian kernel, in virtual machines: for `make test-vm`."""
