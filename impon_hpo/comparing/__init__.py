"""What came of several arms side by side: every run to its end, then tables and pictures."""
