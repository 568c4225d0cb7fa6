"""Exhaustive exploration: every interleaving of tiny clusters of the real roles, each state checked once."""
