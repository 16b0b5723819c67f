"""Builds the pictures and trains the embedded base `vignette` (outside the package, never imported by it)."""
