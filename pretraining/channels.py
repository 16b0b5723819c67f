"""How much of a picture latents with k numbers a patch can hold: `python -m pretraining.channels`.

Composites that no training has seen are projected on the first k principal components of their 8 × 8 patches, and read
by the readers of prompt-following. What a decoder knows of pictures comes on top; what a projection lacks it has to
invent. Writes `channels.json` and `channels.md` under `--results`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from orthoplex.evaluation import MobileNetEncoder
from orthoplex.files import markdown_table, write_json, write_text
from pretraining import pictures
from pretraining.autoencoder import PATCH, PatchPca, fit_pca, images, psnr_db
from pretraining.measure import Exam
from pretraining.readers import SHOWN, Features, fit_readers, glance
from pretraining.real_pictures import real_features
from pretraining.training_set import FITTED

MOST = 3 * PATCH * PATCH


def projected(x: Tensor, pca: PatchPca) -> Tensor:
    """Pictures (n, 3, h, w) in [−1, 1] as the components of their patches hold them; same shape."""
    rows = pca.components.flatten(1)
    back = torch.linalg.pinv(rows).T.reshape_as(pca.components)
    patches = torch.nn.functional.conv_transpose2d(pca.encode(x), back, stride=pca.mean.shape[-1])
    return patches + pca.mean.repeat(1, x.shape[2] // pca.mean.shape[1], x.shape[3] // pca.mean.shape[2])


def _cells(row: Mapping[str, float], real: Mapping[str, float]) -> list[str]:
    """What is read off a projection, and its share of what is read off the composites."""
    shares = (f" ({row[name] / real[name]:.0%})" if real[name] else "" for name in SHOWN)
    return [f"{row['psnr_db']:.2f}", *(f"{row[name]:.3f}{share}" for name, share in zip(SHOWN, shares, strict=True))]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--results", type=Path, default=Path("results/vignette"))
    parser.add_argument("--channels", type=int, nargs="+", default=[8, 12, 16, 20, 24, 32])
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--fit", type=int, default=6000, help="real composites the readers are fitted on")
    parser.add_argument("--pixels", type=int, default=128, help="pictures are read in this size")
    options = parser.parse_args()
    for count in options.channels:
        if not 1 <= count <= MOST:
            parser.error(f"--channels {count}; allowed are 1 to {MOST}")
    encoder = MobileNetEncoder(picture_size=options.pixels)
    readers = fit_readers(*real_features(options.work, options.fit, encoder), encoder.name)
    exam, data = Exam.of(options.prompts, encoder, readers), pictures.load(options.work / "pictures")[0][:FITTED]
    found = {}
    for count in options.channels:
        shown = projected(exam.pictures, fit_pca(data, count=count))
        read = glance(exam.right(Features.of(images(shown), exam.rows, encoder)))
        found[str(count)] = {"psnr_db": psnr_db(shown, exam.pictures), **read}
        print(f"{count} channels", found[str(count)], flush=True)
    real = glance(exam.right(exam.ceiling))
    told = {"prompts": options.prompts, "fit": options.fit, "pixels": options.pixels}
    write_json(options.results / "channels.json", {**told, "channels": found, "real": real})
    lines = [[count, *_cells(row, real)] for count, row in found.items()]
    lines.append(["composites", "", *(f"{real[name]:.3f}" for name in SHOWN)])
    write_text(options.results / "channels.md", markdown_table(["channels", "PSNR in dB", *SHOWN], lines))


if __name__ == "__main__":
    main()
