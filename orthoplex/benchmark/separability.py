"""Separability of the sample concepts in the features of encoders, on real pictures: a measured choice of features.

python -m orthoplex.benchmark.separability --output results/encoder.json
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from torch import cat

from orthoplex.benchmark.machine import machine
from orthoplex.benchmark.measurement import References, gallery_of, read_references
from orthoplex.benchmark.settings import EncoderSettings
from orthoplex.benchmark.sources import ConceptSource, sample_sources
from orthoplex.evaluation import identity_rate, identity_threshold, image_alignment, recognised_rate, scores
from orthoplex.files import markdown_table, write_json, write_text

_CHOICES = (
    EncoderSettings("bottleneck", 96),
    EncoderSettings("bottleneck", 128),
    EncoderSettings("bottleneck", 224),
    EncoderSettings("block-13", 128),
    EncoderSettings("block-10", 128),
)


@dataclass(frozen=True)
class Separability:
    """One kind of concepts; held-out pictures against training pictures, means over the kind's concepts.

    Attributes:
        recognised: Share recognised as their own concept among those of the kind.
        identity: Share above the threshold that at most 5 % of the other concepts' pictures pass.
        own: Alignment to their own concept.
        others: Alignment to the other concepts of the kind.
    """

    recognised: float
    identity: float
    own: float
    others: float


def separability(references: Mapping[str, References], kind: str) -> Separability:
    """Measure one kind, which needs two concepts or more."""
    rows = []
    for name, entry in references.items():
        if entry.kind != kind:
            continue
        gallery = gallery_of(name, references)
        others = [references[other] for other in gallery if other != name]
        impostors = cat([cat([other.training, other.held_out]) for other in others])
        threshold = identity_threshold(scores(impostors, {name: entry.training})[:, 0])
        rows.append(
            Separability(
                recognised=recognised_rate(entry.held_out, gallery, name),
                identity=identity_rate(entry.held_out, entry.training, threshold),
                own=image_alignment(entry.held_out, entry.training),
                others=image_alignment(entry.held_out, cat([other.training for other in others])),
            )
        )
    return Separability(*(mean(getattr(row, number) for row in rows) for number in asdict(rows[0])))


def compare_encoders(concepts: Sequence[ConceptSource], choices: Sequence[EncoderSettings]) -> list[dict[str, object]]:
    """One row for each choice of features: every kind's numbers, and processor milliseconds a picture."""
    rows = []
    for choice in choices:
        encoder = choice.build()
        started = time.process_time()
        references = read_references(concepts, encoder)
        pictures = sum(len(entry.training) + len(entry.held_out) for entry in references.values())
        milliseconds = 1000 * (time.process_time() - started) / pictures
        kinds = {kind: asdict(separability(references, kind)) for kind in dict.fromkeys(c.kind for c in concepts)}
        rows.append({"encoder": encoder.name, "kinds": kinds, "milliseconds_per_picture": milliseconds})
    return rows


def separability_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `compare_encoders` as Markdown, kinds side by side in their order."""
    kinds = list(rows[0]["kinds"])
    header = ["features", *(f"{kind}: recognised, identity, own / others" for kind in kinds), "ms a picture"]
    body = []
    for row in rows:
        numbers = [row["kinds"][kind] for kind in kinds]
        cells = [f"{k['recognised']:.2f}, {k['identity']:.2f}, {k['own']:.2f} / {k['others']:.2f}" for k in numbers]
        body.append([row["encoder"], *cells, f"{row['milliseconds_per_picture']:.0f}"])
    return markdown_table(header, body)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("results/encoder.json"))
    options = parser.parse_args(arguments)
    rows = compare_encoders(sample_sources(), _CHOICES)
    write_json(options.output, {"machine": machine(), "encoders": rows})
    write_text(options.output.with_suffix(".md"), separability_table(rows))


if __name__ == "__main__":
    main()
