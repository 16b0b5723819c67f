"""How well the base follows prompts, read by linear heads on a frozen encoder that no training ever saw.

`python -m pretraining.measure` fits the heads on real composites (`work/pictures`), takes their accuracy on unseen
real composites as the ceiling, lets the base draw the prompts of those very composites and reads the pictures. The same
composites, sent through the autoencoder with and without noise on their latents, show what the decoder costs.
Writes `results/vignette/prompt-following.json` and a table beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image
from torch import Tensor, nn

from orthoplex.evaluation import Encoder, LinearHead, fit_linear_head
from pretraining import pictures
from pretraining.autoencoder import picture_tensor
from pretraining.checkpoint import save
from pretraining.pictures import Factors, compose

#: what is read off a picture, and the share of the ceiling the first version must reach
TARGETS = {"class": None, "subject": 0.50, "scene": 0.75, "style": 0.75}
PLAIN = "no style"
#: standard deviations of the noise on latents with which the decoder is read
NOISES = (0.0, 0.2)


def truth(factors: Factors) -> dict[str, str | None]:
    """The names the heads should read; None where a picture has no such factor."""
    return {
        "class": factors.foreground if factors.foreground != "none" else None,
        "subject": factors.subject,
        "scene": factors.scene,
        "style": factors.style or PLAIN,
    }


def held_in_prompt(factors: Factors) -> str:
    """The full prompt of a picture's factors: every factor named once, in one fixed order."""
    if factors.foreground == "person":
        words = factors.person or {}
        thing = f"a person with {words['hair']} hair wearing a {words['shirt']} shirt"
    elif factors.foreground == "subject":
        thing = pictures.subject_phrase(factors.subject or "")
    else:
        thing = ""
    body = f"{thing} in {factors.scene}" if thing else factors.scene
    return f"{body}, {factors.style}" if factors.style else f"a photo of {body}"


def fit_heads(features: Tensor, rows: Sequence[Factors], encoder: str) -> dict[str, LinearHead]:
    """One linear head per factor, on the pictures that have it."""
    heads = {}
    for name in TARGETS:
        names = [truth(row)[name] for row in rows]
        keep = [i for i, value in enumerate(names) if value is not None]
        heads[name] = fit_linear_head(features[keep], [str(names[i]) for i in keep], encoder=encoder, weight_decay=1e-4)
    return heads


def read(heads: dict[str, LinearHead], features: Tensor, rows: Sequence[Factors]) -> dict[str, dict[str, float]]:
    """Accuracy of every head, with its number of pictures and a 95 % bootstrap interval."""
    out = {}
    rng = np.random.default_rng(0)
    for name, head in heads.items():
        names = [truth(row)[name] for row in rows]
        keep = [i for i, value in enumerate(names) if value is not None]
        guesses = head.predict(features[keep])
        right = np.array([guess == names[i] for guess, i in zip(guesses, keep, strict=True)], dtype=float)
        draws = rng.choice(right, (2000, len(right))).mean(1)
        low, high = np.quantile(draws, [0.025, 0.975])
        out[name] = {"accuracy": right.mean(), "low": low, "high": high, "pictures": len(right)}
    return out


def generate(folder: Path, prompts: Sequence[str], *, steps: int, guidance: float, batch: int) -> list[Image.Image]:
    """The base's own pictures of prompts, one seed each."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    images: list[Image.Image] = []
    for start in range(0, len(prompts), batch):
        part = list(prompts[start : start + batch])
        seeds = [torch.Generator().manual_seed(start + n) for n in range(len(part))]
        images += pipe(part, num_inference_steps=steps, guidance_scale=guidance, generator=seeds).images
    return images


@dataclass(frozen=True)
class Reconstruction:
    """What the autoencoder makes of pictures (n, 3, h, w) in [−1, 1] when noise lies on their latents."""

    noise: float
    latents: Tensor
    decoded: Tensor

    def images(self) -> list[Image.Image]:
        """The decoded pictures."""
        pixels = ((self.decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
        return [Image.fromarray(picture) for picture in pixels.numpy()]


@torch.no_grad()
def reconstruct(folder: Path, x: Tensor, noise: float) -> Reconstruction:
    """Encode, add Gaussian noise of standard deviation `noise`, decode."""
    vae = AutoencoderKL.from_pretrained(folder / "vae", dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    decoded, latents = [], []
    for batch in x.split(25):
        latents.append(vae.encode(batch).latent_dist.mean)
        latents[-1] = latents[-1] + noise * torch.randn(latents[-1].shape, generator=generator)
        decoded.append(vae.decode(latents[-1]).sample)
    return Reconstruction(noise, torch.cat(latents), torch.cat(decoded))


def decoding_quality(x: Tensor, found: Reconstruction) -> dict[str, float]:
    """Mean PSNR in dB of reconstructed pictures, beside the best linear decoding of the very same latents."""
    patches = nn.functional.unfold(x, 8, stride=8).transpose(1, 2).reshape(-1, 192)
    codes = nn.functional.pad(found.latents.flatten(2).transpose(1, 2).reshape(len(patches), -1), (0, 1), value=1.0)
    linear = codes @ torch.linalg.lstsq(codes, patches).solution
    linear = nn.functional.fold(linear.reshape(len(x), -1, 192).transpose(1, 2), 128, 8, stride=8)

    def psnr(y: Tensor) -> float:
        return float((10 * torch.log10(4 / (y.clamp(-1, 1) - x).square().mean((1, 2, 3)))).mean())

    return {"pictures": len(x), "psnr_db": psnr(found.decoded), "psnr_db_linear_decoding": psnr(linear)}


def real_features(work: Path, count: int, encoder: Encoder) -> tuple[Tensor, list[Factors]]:
    """Features and factors of the first `count` real composites; the features are kept in `work`."""
    data = pictures.load(work / "pictures")[0][:count]
    cache = work / f"features-{encoder.name}-{hashlib.sha256(data.tobytes()).hexdigest()[:16]}.pt"
    if not cache.exists():
        save(cache, {"features": encoder.encode([Image.fromarray(picture) for picture in data])})
    return torch.load(cache, weights_only=True)["features"], pictures.load_factors(work / "pictures")[:count]


def table(report: dict) -> str:
    """The report as Markdown."""
    lines = ["| factor | base's pictures | real composites (ceiling) | share | goal |", "|---|---|---|---|---|"]
    for name, row in report["factors"].items():
        base, real = row["base"], row["real"]
        goal = f"{row['goal']:.0%}" if row["goal"] else ""
        found = f"{base['accuracy']:.3f} [{base['low']:.3f}, {base['high']:.3f}]"
        lines.append(f"| {name} | {found} | {real['accuracy']:.3f} | {row['share']:.0%} | {goal} |")
    lines += [
        "",
        "The autoencoder on unseen composites, and what the same heads read in its pictures:",
        "",
        f"| noise on latents | PSNR in dB | linear decoding | {' | '.join(TARGETS)} |",
        "|" + "---|" * (3 + len(TARGETS)),
    ]
    for row in report["autoencoder"]:
        values = [f"{row['read'][name]['accuracy']:.3f}" for name in TARGETS]
        cells = [f"{row['noise']:.1f}", f"{row['psnr_db']:.2f}", f"{row['psnr_db_linear_decoding']:.2f}", *values]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--base", type=Path, default=Path("orthoplex/vignette/base"))
    parser.add_argument("--results", type=Path, default=Path("results/vignette"))
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--fit", type=int, default=4000, help="real composites the heads are fitted on")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4.0)
    options = parser.parse_args()
    encoder = Encoder(picture_size=128)
    unseen = [compose(2, index, styled=0.5) for index in range(options.prompts)]
    real, rows = real_features(options.work, options.fit, encoder)
    heads = fit_heads(real, rows, encoder.name)
    wanted = [factors for _, factors in unseen]
    ceiling = read(heads, encoder.encode([picture for picture, _ in unseen]), wanted)
    prompts = [held_in_prompt(factors) for factors in wanted]
    drawn = generate(options.base, prompts, steps=options.steps, guidance=options.guidance, batch=50)
    base = read(heads, encoder.encode(drawn), wanted)
    x = picture_tensor(np.stack([np.asarray(picture) for picture, _ in unseen]))
    found = [reconstruct(options.base, x, noise) for noise in NOISES]
    report = {
        "prompts": options.prompts,
        "steps": options.steps,
        "guidance": options.guidance,
        "encoder": encoder.name,
        "autoencoder": [
            {
                "noise": one.noise,
                **decoding_quality(x, one),
                "read": read(heads, encoder.encode(one.images()), wanted),
            }
            for one in found
        ],
        "factors": {
            name: {
                "base": base[name],
                "real": ceiling[name],
                "share": base[name]["accuracy"] / ceiling[name]["accuracy"],
                "goal": goal,
            }
            for name, goal in TARGETS.items()
        },
    }
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "prompt-following.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.results / "prompt-following.md").write_text(table(report))
    print(table(report))


if __name__ == "__main__":
    main()
