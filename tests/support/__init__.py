"""A plug-in world model and environment of the tests' own, and ways to run commands."""
