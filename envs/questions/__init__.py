"""Question sources, one a file."""
