"""Sweeps: what beat asks for again and again."""
