"""A probabilistic ensemble of MLPs: the workhorse of model-based reinforcement learning (PETS, MBPO)."""
