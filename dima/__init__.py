"""DIMA: a diffusion-inspired multi-agent world model, and (in `dima.run`) the commands of the toolkit."""
