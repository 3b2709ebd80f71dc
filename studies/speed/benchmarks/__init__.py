"""The measurements of bench.py: this package beside what one would use instead."""
