"""The command line: one function a command; what takes long to import is imported inside."""
