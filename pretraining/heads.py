"""The heads that ship with the package: linear readers of a picture's scene and of its painting style.

`python -m pretraining.heads` fits them on real composites (`work/pictures`) with the features that experiments measure
in, writes them into the package as `heads/scene.safetensors` and `heads/style.safetensors`, and notes in
`results/vignette/heads.json` and `heads.md` how well the files that were written read composites of another collection.
Text alignment is read with them (docs/evaluation.md); no generated picture ever takes part in the fit.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orthoplex.evaluation import Encoder, LinearHead, MobileNetEncoder, load_head, save_head
from orthoplex.files import markdown_table, write_json, write_text
from pretraining.compose import SIZE, Factors
from pretraining.readers import PLAIN, Features, accuracy, fit_head, truth
from pretraining.real_pictures import real_features, unseen
from pretraining.seeds import HEADS

FACTORS = ("scene", "style")


def named(factor: str, rows: Sequence[Factors]) -> list[str]:
    """The name of a factor in every picture; all pictures have a scene, and a style or `PLAIN`."""
    return [str(truth(row)[factor]) for row in rows]


def fit_heads(features: Features, rows: Sequence[Factors], encoder: str) -> dict[str, LinearHead]:
    """One head for each of `FACTORS`."""
    return {factor: fit_head(features.whole, named(factor, rows), encoder) for factor in FACTORS}


def reading(head: LinearHead, features: torch.Tensor, names: Sequence[str], kept: Sequence[bool]) -> dict[str, float]:
    """How often a head names the pictures that are kept rightly."""
    guesses = head.predict(features)
    right = [guess == name for guess, name, keep in zip(guesses, names, kept, strict=True) if keep]
    return accuracy(np.array(right, dtype=float))


def report(heads: dict[str, LinearHead], features: torch.Tensor, rows: Sequence[Factors]) -> dict[str, Any]:
    """The readings of both heads: of all pictures, and of painted and other ones apart."""
    painted = [row.style is not None for row in rows]
    kinds = {"all": [True] * len(rows), "painted": painted, "not_painted": [not one for one in painted]}
    return {
        factor: {
            "classes": len(head.classes),
            **{kind: reading(head, features, named(factor, rows), kept) for kind, kept in kinds.items()},
        }
        for factor, head in heads.items()
    }


def table(found: dict[str, Any]) -> str:
    """What `report` found, as Markdown."""
    kinds = ("all", "not_painted", "painted")
    header = ["names of", "classes", *(kind.replace("_", " ") for kind in kinds)]
    rows = []
    for factor, row in found.items():
        cells = [
            f"{one['accuracy']:.3f} ({one['low']:.3f}–{one['high']:.3f}) of {one['pictures']}"
            for one in (row[kind] for kind in kinds)
        ]
        rows.append([factor, str(row["classes"]), *cells])
    return markdown_table(header, rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--fit", type=int, default=12_000, help="real composites the heads are fitted on")
    parser.add_argument("--unseen", type=int, default=900, help="real composites they are measured on")
    parser.add_argument("--output", type=Path, default=Path("orthoplex/vignette/heads"))
    parser.add_argument("--results", type=Path, default=Path("results/vignette"))
    options = parser.parse_args()
    encoder: Encoder = MobileNetEncoder(picture_size=SIZE)
    features, rows = real_features(options.work, options.fit, encoder)
    for factor, head in fit_heads(features, rows, encoder.name).items():
        options.output.mkdir(parents=True, exist_ok=True)
        save_head(head, options.output / f"{factor}.safetensors")
    files = {factor: options.output / f"{factor}.safetensors" for factor in FACTORS}
    pictures, shown = unseen(HEADS, options.unseen)
    written = {factor: load_head(path) for factor, path in files.items()}
    values = {
        "encoder": encoder.name,
        "fitted_on": len(rows),
        "painted_among_them": sum(name != PLAIN for name in named("style", rows)),
        "bytes": {factor: path.stat().st_size for factor, path in files.items()},
        "unseen": report(written, encoder.encode(pictures), shown),
    }
    write_json(options.results / "heads.json", values)
    write_text(options.results / "heads.md", table(values["unseen"]))
    print(table(values["unseen"]))


if __name__ == "__main__":
    main()
