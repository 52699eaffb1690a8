"""Several Docker hosts, joined by a network: for `make test-hosts`."""
