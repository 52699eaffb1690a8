"""Figures: weft beside Docker's own drivers, and beside a driver that does nothing. See docs/performance.md."""
