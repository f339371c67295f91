"""Thin Ray shells. What they do is done by plain functions that are tested without Ray."""
