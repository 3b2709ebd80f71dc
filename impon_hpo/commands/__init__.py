"""The commands: one function each; what takes long to import is imported inside."""
