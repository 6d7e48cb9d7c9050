"""The commands and the training loop: knows everything, imported by nothing else."""
