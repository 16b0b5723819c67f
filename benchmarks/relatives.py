"""The shipped concepts on relatives of the embedded base: `python -m benchmarks.relatives`.

A relative is a copy whose every weight is moved by noise of a share of the spread of its tensor, or one that was
rounded to bfloat16. Each of the twelve shipped concepts draws pictures of its kind's first caption on each relative,
and so does the relative with the class word in the concept's place, from the same noise. Writes
`results/relatives.json`, with the distance that the warning names, its table in `docs/bases.md`, and a sheet of
pictures.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from orthoplex import vignette
from orthoplex.activations.captions import with_article
from orthoplex.benchmark.contact_sheet import Block, write_contact_sheet
from orthoplex.concepts import KINDS, Concept, load_concept
from orthoplex.evaluation import MobileNetEncoder, image_alignment, recognised_rate
from orthoplex.files import markdown_table, picture_files, read_picture, write_json
from orthoplex.files.markdown import filled
from orthoplex.generation import generate
from orthoplex.models import Base, WeightSample, load_base, on_base
from orthoplex.models.identity import weights_hash

NOISES = (1e-3, 1e-2, 1e-1)
PAGE, SHEET = Path("docs/bases.md"), Path("docs/images/relatives.jpg")
SHOWN = ("anna", "clara", "otto", "pip", "piazza", "lab", "umbra", "viola")


@dataclass(frozen=True)
class Row:
    """The numbers of one relative, means over concepts.

    Attributes:
        relative: The noise, in units of the weights' spread, or the data type.
        distance: As the warning prints it; None for the base itself, which has no warning.
        base_alignment: Mean pairwise cosine to the concept's pictures, of the relative with the class word.
        alignment: The same, with the concept.
        recognised: Share of pictures with the concept that are recognised among the concepts of its kind.
        alignment_kept: Alignment over that on the base itself.
        gain_kept: Alignment beyond the class word's over the same on the base itself.
    """

    relative: str
    distance: str | None
    base_alignment: float
    alignment: float
    recognised: float
    alignment_kept: float = 1.0
    gain_kept: float = 1.0


def moved(values: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Weights moved by noise of a share of their spread; biases and norms stay."""
    if values.ndim < 2:
        return values
    return values + noise * values.std() * torch.randn(values.shape, generator=generator)


def relative_of(base: Base, change: Callable[[Tensor], Tensor]) -> Base:
    """A copy of a base with changed weights, and the identity that they have."""
    other = copy.deepcopy(base)
    with torch.no_grad():
        for module in other.family.components().values():
            for values in module.parameters():
                values.copy_(change(values))
    other.identity = replace(other.identity, hash=weights_hash(other.family.components()))
    return other


def relatives(base: Base) -> Iterator[tuple[str, Base]]:
    """Name and base of every relative, the base itself first."""
    yield "0", base
    for noise in NOISES:
        generator = torch.Generator().manual_seed(1)
        yield f"{noise:g}", relative_of(base, lambda values, n=noise, g=generator: moved(values, n, g))
    yield "bfloat16", relative_of(base, lambda values: values.to(torch.bfloat16))


def pictures(base: Base, prompt: str, count: int, concept: Concept | None = None) -> list[Image.Image]:
    """Pictures of a prompt, of the same noise for every base."""
    return generate(base, prompt, merge=concept, num_images=count, seed=100, mixed_precision="auto")


def measure(name: str, base: Base, relative: Base, count: int, folder: Path) -> Row:
    """Draw every concept on a relative; the first picture of each is put into a folder."""
    encoder = MobileNetEncoder(layer="bottleneck", picture_size=128)
    samples = vignette.sample_concepts()
    references = {
        sample.name: encoder.encode([read_picture(path) for path in picture_files(sample.folder)]) for sample in samples
    }
    compared = (
        None if relative is base else WeightSample.of(base.family.components()).compare(relative.family.components())
    )
    plain, shown, rates = [], [], []
    for sample in samples:
        concept = load_concept(vignette.concept_file(sample.name, method="orthogonal"))
        adopted = on_base(concept, relative)
        caption = KINDS[sample.kind].captions[0]
        own = references[sample.name]
        drawn = pictures(relative, caption.format(trigger=concept.manifest.trigger), count, adopted)
        drawn[0].save(folder / f"{name} {sample.name}.png")
        with_concept = encoder.encode(drawn)
        word = with_article(sample.class_word)
        without = encoder.encode(pictures(relative, caption.format(trigger=word), count))
        gallery: dict[str, Tensor] = {one.name: references[one.name] for one in samples if one.kind == sample.kind}
        shown.append(image_alignment(with_concept, own))
        plain.append(image_alignment(without, own))
        rates.append(recognised_rate(with_concept, gallery, sample.name))
    distance = None if compared is None else f"{compared.distance:.2g}"
    return Row(name, distance, round(fmean(plain), 4), round(fmean(shown), 4), round(fmean(rates), 4))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of the rows of `results/relatives.json`."""
    heads = {
        "relative": "moved by",
        "distance": "the warning's distance",
        "alignment": "alignment",
        "alignment_kept": "kept",
        "base_alignment": "class word",
        "gain_kept": "gain over it kept",
        "recognised": "recognised",
    }
    cells = [
        ["–" if row[key] is None else f"{row[key]:.3f}" if isinstance(row[key], float) else row[key] for key in heads]
        for row in rows
    ]
    return markdown_table(list(heads.values()), cells).rstrip()


def write_table(results: Path, page: Path) -> None:
    """Put the table between the page's markers."""
    rows = json.loads(results.read_text(encoding="utf-8"))["rows"]
    page.write_text(filled(page.read_text(encoding="utf-8"), {"relatives": table(rows)}), encoding="utf-8")


def main() -> None:
    """Measure all relatives, write the file, and put its table into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=4, help="pictures of each concept on each relative")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("results/relatives.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    base = load_base("vignette")
    rows: list[Row] = []
    with TemporaryDirectory() as folder:
        for name, relative in relatives(base):
            row = measure(name, base, relative, options.pictures, Path(folder))
            first = rows[0] if rows else row
            gain = (row.alignment - row.base_alignment) / (first.alignment - first.base_alignment)
            kept = round(row.alignment / first.alignment, 4)
            rows.append(replace(row, alignment_kept=kept, gain_kept=round(gain, 4)))
            print(json.dumps(asdict(rows[-1])), flush=True)
        sheet = {
            row.relative: {concept: Path(folder) / f"{row.relative} {concept}.png" for concept in SHOWN} for row in rows
        }
        write_contact_sheet([Block("weights moved by, in units of their spread", sheet)], SHEET)
    write_json(
        options.output,
        {
            "command": "python -m benchmarks.relatives",
            "concepts": "the twelve shipped ones, method orthogonal",
            "pictures": options.pictures,
            "rows": [asdict(row) for row in rows],
        },
        indent=2,
    )
    write_table(options.output, PAGE)


if __name__ == "__main__":
    main()
