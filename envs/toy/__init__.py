"""Analytic multi-agent systems whose next-state law is known in closed form; no simulator."""
