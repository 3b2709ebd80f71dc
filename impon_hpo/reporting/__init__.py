"""What came of it: reads the storage, and never imports torch."""
