"""A sheet of what the next base learns from: `python -m pretraining.mix_sheet` draws the first samples of a run."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from pretraining.captions import caption
from pretraining.compose import compose
from pretraining.export import sheet
from pretraining.mix import NEXT
from pretraining.seeds import COMPOSITES, PAINTED


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("results/vignette/next/mix.jpg"))
    parser.add_argument("--count", type=int, default=64, help="every eighth is painted")
    options = parser.parse_args()
    shown, texts = [], []
    for number in range(options.count):
        painted = number % 8 == 7
        picture, factors = compose(PAINTED if painted else COMPOSITES, number, styled=1.0 if painted else 0.0, mix=NEXT)
        shown.append(picture)
        texts.append(caption(factors, random.Random(number), NEXT.sided) or "(empty)")
    sheet(shown, texts, 8, options.output)


if __name__ == "__main__":
    main()
