"""The held-out pool: forty concepts beyond the samples, two hundred more for experiments with very many, forty people.

The people of the pool are of all drawing styles in equal parts, of which the base draws one well. The forty of *folk*
are of that one, with large heads: who of them is who can be told apart by a base that draws people well, and is hard.

`python -m pretraining.pool` writes sixteen pictures of each under `work/pool` (the second eight are kept for measuring)
and compares the pictures' checksums with `results/vignette/pool.json`; only then it writes the indices that experiments
read. Nothing of them is in the base's training (held_out.py). The pictures themselves are not in git: they are made
again from their names.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from orthoplex.files import write_json
from pretraining import held_out
from pretraining.concept_pictures import EMOJI_LICENCES, Sample, index_rows, write
from pretraining.people import DRAWINGS, random_person
from pretraining.vocabulary import LEADING_STYLE

SHARDS = ("1d7874", "f4c095", "ee2e31", "071e22", "f7f3e3")
ICE = ("5b3f8c", "9ad1d4", "f2f7f2", "27187e", "ff8600")
DOTS = ("16324f", "ffb000", "e8436b")


def held_out_person(name: str, style: str) -> Sample:
    """A person drawn from its name, with a hair colour that nobody in the base's training has."""
    rng = random.Random(f"pool/{name}")
    colour = rng.choice(held_out.HAIR_COLOURS)
    found = random_person(rng, style, {colour: colour})
    return Sample(name, "person", "person", (style, found.options), f"DiceBear {style} (see NOTICE)")


def _people(prefix: str, count: int) -> list[Sample]:
    styles = list(DRAWINGS)
    return [held_out_person(f"{prefix}{n:02d}", styles[n % len(styles)]) for n in range(count)]


def _emoji(name: str, class_word: str, number: int) -> Sample:
    family = list(EMOJI_LICENCES)[number % len(EMOJI_LICENCES)]
    return Sample(name, "subject", class_word, ("emoji", family, name), EMOJI_LICENCES[family])


def _character(name: str, class_word: str) -> Sample:
    return Sample(name.replace("_", "-"), "subject", class_word, ("character", name), "Kenney (CC0)")


def _scene(name: str, kind: str, source: str) -> Sample:
    licence = "@pmndrs/assets (CC0)" if kind == "panorama" else "procgen (see NOTICE)"
    return Sample(name, "scene", "place", (kind, source), licence)


def _style(name: str, *source: int | str) -> Sample:
    return Sample(name, "style", "painting", source, "painted with Magenta's style network (Apache-2.0)")


def pool() -> list[Sample]:
    """Twelve people, twelve subjects, eight scenes, eight styles; none of them is a sample concept."""
    animals = ("unicorn", "koala", "crab", "dolphin", "gorilla")
    others = (("castle", "building"), ("tulip", "plant"), ("teddy-bear", "object"))
    subjects = [*((name, "animal") for name in animals), *others]
    return [
        *_people("person-", 12),
        *(_emoji(name, class_word, number) for number, (name, class_word) in enumerate(subjects)),
        _character("female_adventurer", "person"),
        _character("male_person", "person"),
        _character("robot", "object"),
        _character("zombie", "person"),
        *(_scene(name, "panorama", name) for name in ("venice", "workshop", "bridge")),
        *(_scene(f"candy{n}", "background", f"platform_backgrounds_2/candy{n}.png") for n in (2, 3, 4)),
        _scene("fantasy4", "background", "platform_backgrounds_2/fantasy4.png"),
        _scene("underwater1", "background", "water_backgrounds/underwater1.png"),
        *(_style(f"style-{number:02d}", number) for number in sorted(held_out.STYLES - {10, 15, 16})),
        _style("shards", "shards", *(f"#{colour}" for colour in SHARDS)),
        _style("ice", "shards", *(f"#{colour}" for colour in ICE)),
        _style("dots", "dots", *(f"#{colour}" for colour in DOTS)),
    ]


def more() -> list[Sample]:
    """One hundred more people and one hundred more subjects."""
    subjects = [(name, class_word) for class_word, names in held_out.MORE_EMOJI.items() for name in names]
    emoji = (_emoji(name, class_word, number) for number, (name, class_word) in enumerate(subjects))
    return [*_people("someone-", 100), *emoji]


def folk() -> list[Sample]:
    """Forty people of the style that leads, with large heads."""
    return [replace(held_out_person(f"folk-{n:02d}", LEADING_STYLE), close=True) for n in range(40)]


def checksum(folder: Path) -> str:
    """SHA-256 over a concept's files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _make(job: tuple[Sample, Path]) -> tuple[str, str]:
    sample, folder = job
    write(sample, folder / sample.name)
    return sample.name, checksum(folder / sample.name)


def build(folder: Path, samples: list[Sample], workers: int) -> dict[str, str]:
    """Write the concepts; returns the checksum of each."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as executor:
        return dict(executor.map(_make, [(sample, folder) for sample in samples]))


def differing(sums: dict[str, str], kept: dict[str, str]) -> list[str]:
    """The names whose checksums are not the same in both."""
    return sorted(name for name in kept.keys() | sums.keys() if kept.get(name) != sums.get(name))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("work/pool"))
    parser.add_argument("--checksums", type=Path, default=Path("results/vignette/pool.json"))
    parser.add_argument("--workers", type=int, default=2)
    differ = parser.add_mutually_exclusive_group()
    differ.add_argument("--write", action="store_true", help="write the checksums instead of comparing with them")
    differ.add_argument("--any", action="store_true", help="take pictures that differ from the listed ones, too")
    options = parser.parse_args()
    parts = {options.output: pool(), options.output / "more": more(), options.output / "folk": folk()}
    sums: dict[str, str] = {}
    for folder, samples in parts.items():
        sums |= build(folder, samples, options.workers)
    if options.write:
        write_json(options.checksums, sums)
    other = differing(sums, json.loads(options.checksums.read_text()))
    if other:
        print(f"{len(other)} of {len(sums)} concepts have other pictures than listed: {', '.join(other)}")
        if not options.any:
            parser.exit(1, "no index was written; --any takes them as they are\n")
    for folder, samples in parts.items():
        write_json(folder / "concepts.json", [{**row, "held_out": 8} for row in index_rows(samples)])
    print(f"{len(sums)} concepts, {len(sums) - len(other)} as listed in {options.checksums}")


if __name__ == "__main__":
    main()
