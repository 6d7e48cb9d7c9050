"""What the global state may be, given what an agent has seen: several plausible states, never one mean."""
