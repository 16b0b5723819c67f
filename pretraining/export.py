"""Write the trained base as an ordinary diffusers pipeline folder, and draw sheets of samples."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw
from transformers import CLIPTokenizer

from pretraining.autoencoder import PatchPca, build
from pretraining.denoiser import Denoiser, scheduler
from pretraining.muon import named

PROMPTS = (
    "a fox in a snowy forest", "a person with red hair in a forest", "a photo of a panda in outer space",
    "a castle", "a person with glasses and black hair wearing a yellow shirt in a city street", "a beach",
    "starry blue oil painting of a horse in a meadow", "a guitar in a warehouse", "a robot in deep water",
    "a person with a beard and brown hair in a winter night", "red ink painting of an owl in a cave", "a person",
    "a strawberry in a desert", "stained glass painting of a person with blond hair in green hills",
    "a pale watercolor of a sailboat in the sea", "an animal",
)  # fmt: skip


DECODER, REFINED = "decoder.pt", "decoder-refined.pt"


def pipeline(work: Path) -> StableDiffusionPipeline:
    """The pipeline of the checkpoints under `work` (averaged weights; the refined decoder where it is), float32."""
    vae = build(PatchPca(**torch.load(work / "pca.pt", weights_only=True)))
    for file in (work / REFINED, work / DECODER):
        if file.exists():
            vae.decoder.load_state_dict(torch.load(file, weights_only=True)["average"])
            break
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    denoiser = Denoiser(len(tokenizer))
    average = torch.load(work / "denoiser.pt", weights_only=True)["average"]
    denoiser.load_state_dict(named(denoiser, average))
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=denoiser.text_encoder,
        tokenizer=tokenizer,
        unet=denoiser.unet,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def export(work: Path, folder: Path) -> None:
    """Save the pipeline as fp16 safetensors under `folder`."""
    pipeline(work).to(dtype=torch.float16).save_pretrained(folder, safe_serialization=True)


def sheet(pictures: list[Image.Image], captions: list[str], columns: int, path: Path) -> None:
    """A contact sheet with a caption under every picture."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * width, rows * (height + 26)), "white")
    draw = ImageDraw.Draw(page)
    for index, (picture, text) in enumerate(zip(pictures, captions, strict=True)):
        x, y = (index % columns) * width, (index // columns) * (height + 26)
        page.paste(picture, (x, y))
        draw.text((x + 2, y + height), f"{text[:21]}\n{text[21:42]}", fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path)


def loss_curve(log: Path, path: Path) -> None:
    """Draw the loss of a training log (JSON lines) over the samples seen; a vertical jump is a change of latents."""
    records = map(json.loads, log.read_text().splitlines())
    latest = {row["samples"]: row for row in records}  # what a resumed run did again replaces what it undid
    rows = [latest[samples] for samples in sorted(latest)]
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    axes.plot([row["samples"] for row in rows], [row["loss"] for row in rows], linewidth=1)
    axes.set(xlabel="samples seen", ylabel="loss")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def sample_sheet(folder: Path, path: Path, *, steps: int = 20, guidance: float = 4.0) -> None:
    """Draw PROMPTS with the pipeline in `folder`."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(n) for n in range(len(PROMPTS))]
    images = pipe(list(PROMPTS), num_inference_steps=steps, guidance_scale=guidance, generator=generators).images
    sheet(images, list(PROMPTS), 8, path)
