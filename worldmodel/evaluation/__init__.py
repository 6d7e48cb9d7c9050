"""How far a world model's imagination can be trusted: its forecasts against what really happened."""
