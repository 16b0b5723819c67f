"""LoRA files of other programs: their names and numbers, both ways."""
