"""Flows, on the real Open vSwitch."""
