"""How well the base follows prompts, how much its pictures differ, and what its autoencoder costs.

`python -m pretraining.measure` fits readers on real composites (`work/pictures`; see readers.py), takes what they read
on unseen real composites as the ceiling, lets the base draw the prompts of those very composites and reads the
pictures. With `--previous` another pipeline folder draws the same prompts. The composites, sent through the autoencoder
with and without noise on their latents, show what the decoder costs. Pictures of the same prompt by sixteen seeds are
compared with composites of as many different people. Writes `results/vignette/prompt-following.json` and a table.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTokenizer

from orthoplex.evaluation import Encoder, MobileNetEncoder, mean_cosine, retention_interval
from orthoplex.files import markdown_table, write_json, write_text
from orthoplex.models import chosen_precision
from pretraining.autoencoder import images, patches_of, picture_tensor, psnr_db
from pretraining.compose import CANVAS, SIZE, Factors, paste, scene_picture, usual_box, usual_view
from pretraining.export import generate
from pretraining.mix import USUALLY
from pretraining.people import random_person
from pretraining.readers import FACTORS, Features, Readers, accuracy, fit_readers, pair
from pretraining.real_pictures import asked, real_features
from pretraining.vocabulary import LEADING_STYLE, SCENES

#: shares that the base must reach: of the ceiling, but of "both found" of all prompts
TARGETS = {
    "class": None,
    "subject": 0.80,
    "scene": 0.90,
    "style": 0.90,
    "both found": 0.60,
    "found by chance": None,
    "both named": None,
}
#: standard deviations of the noise on latents with which the decoder is read
NOISES = (0.0, 0.2)
#: pixels to which pictures are enlarged before they are read: real subjects are told apart better than at 128
ENCODED = 224
#: scenes of the prompts whose sixteen seeds are compared, and seeds
DIVERSITY_SCENES, SEEDS = 8, 16


def shares(base: dict[str, np.ndarray], real: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """What a base reaches of the ceiling, per factor that a goal is set for, with a 95 % bootstrap interval.

    `base` and `real` are 0 or 1 for the same prompts.
    """
    out = {}
    for name in (name for name, goal in TARGETS.items() if goal is not None):
        if real[name].mean() > 0:
            pair_of_columns = (torch.from_numpy(values)[:, None] for values in (real[name], base[name]))
            found = retention_interval(*pair_of_columns)
            out[name] = {"share": found.value, "low": found.low, "high": found.high}
    return out


def summary(right: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """How often each factor is read rightly."""
    return {name: accuracy(values) for name, values in right.items()}


@dataclass(frozen=True)
class Reconstruction:
    """What the autoencoder makes of pictures (n, 3, h, w) in [−1, 1] when noise lies on their latents."""

    noise: float
    latents: Tensor
    decoded: Tensor


@torch.no_grad()
def reconstruct(folder: Path, x: Tensor, noise: float) -> Reconstruction:
    """Encode, add Gaussian noise of standard deviation `noise`, decode."""
    vae = AutoencoderKL.from_pretrained(folder / "vae", dtype=torch.float32).to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(0)
    decoded, latents = [], []
    for batch in x.split(25):
        latents.append(vae.encode(batch).latent_dist.mean)
        latents[-1] = latents[-1] + noise * torch.randn(latents[-1].shape, generator=generator)
        decoded.append(vae.decode(latents[-1]).sample)
    return Reconstruction(noise, torch.cat(latents), torch.cat(decoded))


def decoding_quality(x: Tensor, found: Reconstruction) -> dict[str, float]:
    """Mean PSNR in dB of reconstructed pictures, beside the best linear decoding of the very same latents."""
    patches = patches_of(x)
    codes = nn.functional.pad(found.latents.flatten(2).transpose(1, 2).reshape(len(patches), -1), (0, 1), value=1.0)
    linear = codes @ torch.linalg.lstsq(codes, patches).solution
    linear = nn.functional.fold(linear.reshape(len(x), -1, 192).transpose(1, 2), 128, 8, stride=8)
    return {"pictures": len(x), "psnr_db": psnr_db(found.decoded, x), "psnr_db_linear_decoding": psnr_db(linear, x)}


def known_words(folder: Path, rows: Sequence[Factors]) -> list[int]:
    """Which rows name only subjects, scenes and styles whose words the base's tokenizer holds whole."""
    own = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer").get_vocab()
    kept = []
    for number, row in enumerate(rows):
        names = [row.scene, row.style or "", *(thing.subject or "" for thing in row.things)]
        if all(f"{word}</w>" in own for name in names for word in name.split()):
            kept.append(number)
    return kept


def sides(
    readers: Readers, features: Features, rows: Sequence[Factors], sided: Sequence[bool]
) -> dict[str, float | None]:
    """Of the prompts that state sides: in how many both things are found, and how many of them as stated.

    The second counts pictures in which they are found one way only; where each part passes for either thing, as may be
    with things that look alike, both ways are found.
    """
    pairs = [(names, stated) for names, stated in zip(map(pair, rows), sided, strict=True) if names]
    told = [number for number, (_, stated) in enumerate(pairs) if stated]
    as_stated, exchanged = readers.found(features.halves[:, told], [pairs[number][0] for number in told])
    found = as_stated | exchanged
    one_way = as_stated ^ exchanged
    return {
        "prompts": len(told),
        "found": float(found.mean()) if told else None,
        "one_way": int(one_way.sum()),
        "as_stated": float(as_stated[one_way].mean()) if one_way.any() else None,
    }


def spread(features: Tensor) -> float:
    """Mean of 1 - cosine over all pairs of unit rows (n, d)."""
    return 1 - mean_cosine(features)


def people_in(scene: str, rng: random.Random) -> list[Image.Image]:
    """As many real composites of different people in a scene as there are seeds, of the style that no word names."""
    made = []
    for _ in range(SEEDS):
        box, tilt = usual_box("person", "middle", rng)
        place = SCENES[scene]
        view = usual_view(*place) if rng.random() < USUALLY else scene_picture(*place, rng)
        picture = paste(view, random_person(rng, LEADING_STYLE).draw(rng, CANVAS), box, tilt)
        made.append(picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS))
    return made


def diversity(folder: Path, encoder: Encoder, *, steps: int, guidance: float) -> dict[str, float]:
    """Spread of the features of one prompt's pictures over seeds, mean of several prompts, beside real composites'."""
    rng = random.Random(0)
    scenes = rng.sample(list(SCENES), DIVERSITY_SCENES)
    prompts = [f"a person in {scene}" for scene in scenes for _ in range(SEEDS)]
    drawn = encoder.encode(generate(folder, prompts, steps=steps, guidance=guidance)).unflatten(0, (-1, SEEDS))
    real = [encoder.encode(people_in(scene, rng)) for scene in scenes]
    base, ceiling = float(np.mean([spread(part) for part in drawn])), float(np.mean([spread(part) for part in real]))
    return {"prompts": len(scenes), "seeds": SEEDS, "base": base, "real": ceiling, "share": base / ceiling}


@dataclass(frozen=True, eq=False)
class Exam:
    """Prompts of unseen composites, the composites, and readers of both.

    Attributes:
        pictures: The composites, (n, 3, h, w) in [−1, 1].
        rows: Their factors.
        sided: Whether their prompts state sides.
        prompts: The prompts.
        encoder: What the readers see with.
        readers: Fitted on other composites.
        ceiling: Features of the composites.
    """

    pictures: Tensor
    rows: list[Factors]
    sided: list[bool]
    prompts: list[str]
    encoder: Encoder
    readers: Readers
    ceiling: Features

    @staticmethod
    def of(count: int, encoder: Encoder, readers: Readers) -> Exam:
        """The first prompts, so many."""
        shown, rows, sided, prompts = asked(count)
        x = picture_tensor(np.stack([np.asarray(picture) for picture in shown]))
        return Exam(x, rows, sided, prompts, encoder, readers, Features.of(shown, rows, encoder))

    def right(self, features: Features, kept: Sequence[int] | None = None) -> dict[str, np.ndarray]:
        """What is read rightly off pictures of the prompts, or of those numbered `kept`."""
        if kept is None:
            return self.readers.right(features, self.rows)
        return self.readers.right(features.take(kept, self.rows), [self.rows[number] for number in kept])

    def measured(self, folder: Path, sampling: dict[str, float]) -> dict[str, Any]:
        """All figures of the base in a pipeline folder."""
        drawn = Features.of(generate(folder, self.prompts, **sampling), self.rows, self.encoder)
        known, right = known_words(folder, self.rows), self.right(drawn)
        return {
            "factors": summary(right),
            "shares": shares(right, self.right(self.ceiling)),
            "known_words": {
                "prompts": len(known),
                "base": summary(self.right(drawn, known)),
                "real": summary(self.right(self.ceiling, known)),
            },
            "sides": sides(self.readers, drawn, self.rows, self.sided),
            "diversity": diversity(folder, self.encoder, **sampling),
            "autoencoder": [self._reconstructed(folder, noise) for noise in NOISES],
        }

    def _reconstructed(self, folder: Path, noise: float) -> dict[str, Any]:
        made = reconstruct(folder, self.pictures, noise)
        features = Features.of(images(made.decoded), self.rows, self.encoder)
        quality = decoding_quality(self.pictures, made)
        return {"noise": noise, **quality, "read": summary(self.right(features))}


def _accuracy(row: dict) -> str:
    return f"{row['accuracy']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _share(row: dict) -> str:
    return f"{row['share']:.0%} [{row['low']:.0%}, {row['high']:.0%}]"


def table(report: dict) -> str:
    """The report as Markdown."""
    bases, real = report["bases"], report["real"]
    reached = next(iter(bases.values()))["shares"]
    rows = []
    for name, goal in TARGETS.items():
        share = _share(reached[name]) if name in reached else ""
        told = "" if goal is None else f"{goal:.0%}" + (" of all" if name == "both found" else "")
        found = [_accuracy(base["factors"][name]) for base in bases.values()]
        rows.append([name, *found, f"{real[name]['accuracy']:.3f}", share, told])
    tables = [markdown_table(["factor", *bases, "real composites (ceiling)", "share of the ceiling", "goal"], rows)]
    rows = []
    for label, base in bases.items():
        known = base["known_words"]
        pairs = ((known["base"][name], known["real"][name]) for name in TARGETS)
        rows.append([f"{label}: {known['prompts']}", *(f"{a['accuracy']:.3f} ({b['accuracy']:.3f})" for a, b in pairs)])
    tables.append(
        markdown_table(["prompts in words that a base holds", *(f"{name} (ceiling)" for name in TARGETS)], rows)
    )
    rows = []
    for label, base in bases.items():
        told, people = base["sides"], base["diversity"]
        stated = "" if told["as_stated"] is None else f"{told['as_stated']:.3f} of {told['one_way']}"
        figures = ["" if told["found"] is None else f"{told['found']:.3f}", stated, f"{people['base']:.3f}"]
        rows.append([label, str(told["prompts"]), *figures, f"{people['real']:.3f} ({people['share']:.0%})"])
    header = [
        "base",
        "prompts that state sides",
        "both found",
        "as stated, of those found one way only",
        "spread of people",
        "of composites",
    ]
    tables.append(markdown_table(header, rows))
    rows = []
    for label, base in bases.items():
        for row in base["autoencoder"]:
            figures = [f"{row['noise']:.1f}", f"{row['psnr_db']:.2f}", f"{row['psnr_db_linear_decoding']:.2f}"]
            rows.append([label, *figures, *(f"{row['read'][name]['accuracy']:.3f}" for name in FACTORS)])
    tables.append(markdown_table(["autoencoder", "noise on latents", "PSNR in dB", "linear decoding", *FACTORS], rows))
    return "\n".join(tables)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--base", type=Path, default=Path("orthoplex/vignette/base"))
    parser.add_argument("--previous", type=Path, help="pipeline folder that is measured beside it")
    parser.add_argument("--results", type=Path, default=Path("results/vignette"))
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--fit", type=int, default=12_000, help="real composites the readers are fitted on")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4.0)
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    sampling = {"steps": options.steps, "guidance": options.guidance}
    encoder = MobileNetEncoder(picture_size=ENCODED)
    fitted, rows = real_features(options.work, options.fit, encoder)
    exam = Exam.of(options.prompts, encoder, fit_readers(fitted, rows, encoder.name))
    bases = {"base": options.base} | ({"previous base": options.previous} if options.previous else {})
    found = {}
    for label, folder in bases.items():
        print(f"{label}: {folder}", flush=True)
        found[label] = exam.measured(folder, sampling)
    report = {
        "prompts": options.prompts,
        "fitted_on": len(rows),
        **sampling,
        "encoder": encoder.name,
        "mixed_precision": chosen_precision("auto", torch.device("cpu")),
        "real": summary(exam.right(exam.ceiling)),
        "bases": found,
    }
    write_json(options.results / "prompt-following.json", report)
    write_text(options.results / "prompt-following.md", table(report))
    print(table(report))


if __name__ == "__main__":
    main()
