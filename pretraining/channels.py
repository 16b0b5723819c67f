"""What latents of so many numbers a patch can hold: `python -m pretraining.channels`.

Composites that no training has seen are projected on the first k principal components of 8 × 8 patches, and read by the
readers of prompt-following. A decoder adds to that what it knows of pictures; a number of channels whose projections
are read worse leaves it more to invent. Writes `channels.json` and `channels.md` under `--results`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from orthoplex.benchmark.markdown import markdown_table
from orthoplex.benchmark.report import write_json
from orthoplex.concepts import write_text
from orthoplex.evaluation import MobileNetEncoder
from pretraining import pictures
from pretraining.autoencoder import PatchPca, fit_pca, picture_tensor
from pretraining.readers import SHOWN, Features, Readers, fit_readers
from pretraining.real_pictures import asked, real_features


def projected(x: Tensor, pca: PatchPca) -> Tensor:
    """Pictures (n, 3, h, w) in [−1, 1] as the components of their patches hold them; same shape."""
    rows = pca.components.flatten(1)
    back = torch.linalg.pinv(rows).T.reshape_as(pca.components)
    patches = torch.nn.functional.conv_transpose2d(pca.encode(x), back, stride=pca.mean.shape[-1])
    return patches + pca.mean.repeat(1, x.shape[2] // pca.mean.shape[1], x.shape[3] // pca.mean.shape[2])


def read(x: Tensor, shown: Tensor, exam: tuple[Readers, MobileNetEncoder, list]) -> dict[str, float]:
    """PSNR in dB of `shown` against `x`, and the shares of pictures whose factors are read rightly."""
    readers, encoder, rows = exam
    clamped = shown.clamp(-1, 1)
    found = [Image.fromarray(one) for one in ((clamped + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()]
    right = readers.right(Features.of(found, rows, encoder), rows)
    error = (clamped - x).square().mean((1, 2, 3)).clamp_min(1e-10)
    psnr = float((10 * torch.log10(4 / error)).mean())
    return {"psnr_db": psnr, **{name: float(right[name].mean()) for name in SHOWN}}


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
    encoder = MobileNetEncoder(picture_size=options.pixels)
    readers = fit_readers(*real_features(options.work, options.fit, encoder), encoder.name)
    shown, rows, _, _ = asked(options.prompts)
    x = picture_tensor(np.stack([np.asarray(picture) for picture in shown]))
    data = pictures.load(options.work / "pictures")[0][:4000]
    exam = (readers, encoder, rows)
    found = {str(count): read(x, projected(x, fit_pca(data, count=count)), exam) for count in options.channels}
    real = {name: value for name, value in read(x, x, exam).items() if name in SHOWN}
    told = {"prompts": options.prompts, "fit": options.fit, "pixels": options.pixels}
    write_json(options.results / "channels.json", {**told, "channels": found, "real": real})
    lines = [
        [count, f"{row['psnr_db']:.2f}", *(f"{row[name]:.3f} ({row[name] / real[name]:.0%})" for name in SHOWN)]
        for count, row in found.items()
    ]
    lines.append(["real", "", *(f"{real[name]:.3f}" for name in SHOWN)])
    write_text(options.results / "channels.md", markdown_table(["channels", "PSNR in dB", *SHOWN], lines))


if __name__ == "__main__":
    main()
