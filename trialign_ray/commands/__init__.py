"""The commands, by what they are about. Each imports what it needs only when it runs."""
