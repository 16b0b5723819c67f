"""What commit 3f1c5a0 (version 0.1) made, kept to hold every later design against."""
