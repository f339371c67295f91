"""Data in TRL's schemas with a group column: written from a run, and read as its log."""
