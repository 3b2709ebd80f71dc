"""What the rest costs in time: measurements of this package beside what one would use instead."""
