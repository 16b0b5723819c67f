"""Orthoplex: concepts of a diffusion model that are trained apart and added together in an instant."""

__version__ = "0.1.0"
