"""A recurrent state-space model for each agent, weights shared, with attention between the agents (after MAMBA)."""
