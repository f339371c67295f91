"""Group packs as YAML files."""
