"""The configuration: YAML only, found here by the commands."""
