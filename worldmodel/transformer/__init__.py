"""A transformer world model after MARIE: tokens of each agent's observation, predicted one after the other."""
