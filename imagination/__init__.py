"""Learning inside any world model: rollouts, returns, decentralised actors, a centralised critic, MAPPO."""
