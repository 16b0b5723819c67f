"""The embedded base's name; without torch."""

EMBEDDED = "vignette"
"""The name of the embedded base, and its family."""
