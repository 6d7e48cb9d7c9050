"""The contract that world models keep, the tools they share, and models that are not diffusion."""
