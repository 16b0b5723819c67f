"""Write the trained base as an ordinary diffusers pipeline folder, and draw sheets of samples."""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw
from torch import Tensor
from transformers import CLIPTokenizer

from orthoplex.models import channels_last, precision
from orthoplex.models.saving import save_pipeline
from pretraining.autoencoder import PatchPca, build
from pretraining.denoiser import Denoiser, scheduler
from pretraining.muon import named
from pretraining.refine import REFINING, RefineConfig
from pretraining.rounding import DECODER_STEPS, rounded
from pretraining.showcase import PROMPTS
from pretraining.tokenizer import vocabulary_hash

DECODER = "decoder.pt"


def denoiser_average(work: Path) -> Tensor:
    """The averaged weights of the denoiser's checkpoint under `work`, flat, on the CPU."""
    return _checkpoint(work)["average"]


def _checkpoint(work: Path) -> dict:
    return torch.load(work / "denoiser.pt", map_location="cpu", weights_only=True, mmap=True)  # reads what is used


def denoiser_key(work: Path, average: Tensor) -> str:
    """Stands for a denoiser and the pictures under `work`: what was made from both is called after it."""
    digest = hashlib.sha256(average.numpy().tobytes())
    for shard in sorted((work / "pictures").glob("pictures-????.jsonl")):
        digest.update(shard.read_bytes())
    return digest.hexdigest()[:16]


def folder_hash(folder: Path) -> str:
    """Stands for the weights of a pipeline folder."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def refined_decoder(work: Path, key: str) -> Path:
    """The checkpoint of the decoder refined with today's settings for the denoiser and pictures of a `denoiser_key`."""
    settings = hashlib.sha256(repr((RefineConfig(), REFINING)).encode()).hexdigest()[:8]
    return work / f"decoder-refined-{key}-{settings}.pt"


def pipeline(work: Path) -> StableDiffusionPipeline:
    """The pipeline of the checkpoints under `work`, float32: averaged weights, the decoder refined for them if any.

    Its weights are rounded as they will ship.

    Raises:
        FileNotFoundError: When there is no decoder.
        ValueError: When the denoiser knows other words than the tokenizer, or other latents than the autoencoder's.
    """
    pca = PatchPca.load(work)
    vae = build(pca)
    checkpoint = _checkpoint(work)
    files = (refined_decoder(work, denoiser_key(work, checkpoint["average"])), work / DECODER)
    decoder = next((file for file in files if file.exists()), None)
    if decoder is None:
        raise FileNotFoundError(f"there is neither {files[0]} nor {files[1]}; train the decoder first")
    vae.decoder.load_state_dict(torch.load(decoder, map_location="cpu", weights_only=True)["average"])
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    for name, meant in (("vocabulary", vocabulary_hash(tokenizer)), ("latent_space", pca.key)):
        if checkpoint[name] != meant:
            raise ValueError(f"{work / 'denoiser.pt'} was trained for another {name} than {work} has")
    denoiser = Denoiser(len(tokenizer))
    denoiser.load_state_dict(named(denoiser, checkpoint["average"]))
    made = StableDiffusionPipeline(
        vae=vae,
        text_encoder=denoiser.text_encoder,
        tokenizer=tokenizer,
        unet=denoiser.unet,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    round_trained(made, checkpoint["config"]["rounding_steps"])
    return made


def round_trained(pipe: StableDiffusionPipeline, steps: int) -> None:
    """Round the trained networks in place; the encoder, whose weights cancel one another, stays as it is.

    `steps` are those the denoiser was trained through.
    """
    for network, fine in ((pipe.unet, steps), (pipe.text_encoder, steps), (pipe.vae.decoder, DECODER_STEPS)):
        for weights in network.parameters():
            weights.data = rounded(weights.data, weights.shape, fine)


def export(work: Path, folder: Path) -> None:
    """Save the pipeline as fp16 safetensors under `folder`, whole or not at all, in the place of a pipeline there.

    Trained weights are rounded (`rounding.py`), so that the folder takes less where files are compressed.

    Raises:
        FileNotFoundError: When no decoder was refined for the denoiser.
        ValueError: When the denoiser's rate has not decayed to its end.
        OrthoplexError: When the folder holds something that is no pipeline, or cannot be written.
    """
    checkpoint = _checkpoint(work)
    if (seen := checkpoint["samples"]) < (asked := checkpoint["config"]["samples"]):
        raise ValueError(f"{work / 'denoiser.pt'} has seen {seen} of {asked} samples; what ships is the end of a run")
    refined = refined_decoder(work, denoiser_key(work, checkpoint["average"]))
    if not refined.exists():
        raise FileNotFoundError(f"there is no {refined}; refine the decoder for this denoiser first")
    save_pipeline(pipeline(work).to(dtype=torch.float16), folder, recipe=None, overwrite=True)


def sheet(pictures: list[Image.Image], captions: list[str], columns: int, path: Path) -> None:
    """A contact sheet with a caption of at most four lines under every picture."""
    width, height = pictures[0].size
    lines = [textwrap.wrap(text, width // 6)[:4] for text in captions]
    below = 4 + 11 * max(map(len, lines))
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * (width + 4), rows * (height + below)), "white")
    draw = ImageDraw.Draw(page)
    for index, (picture, text) in enumerate(zip(pictures, lines, strict=True)):
        x, y = (index % columns) * (width + 4), (index // columns) * (height + below)
        page.paste(picture, (x, y))
        draw.multiline_text((x + 2, y + height), "\n".join(text), fill="black", spacing=0, font_size=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, quality=85)


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


def generate(
    folder: Path, prompts: Sequence[str], *, steps: int = 20, guidance: float = 4.0, batch: int = 32
) -> list[Image.Image]:
    """Pictures of prompts by the pipeline in `folder`, one seed each: 0, 1, 2, …; in bf16 where that is fast."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    images: list[Image.Image] = []
    channels_last((pipe.unet, pipe.vae))
    with precision("auto", pipe.device):
        for start in range(0, len(prompts), batch):
            part = list(prompts[start : start + batch])
            seeds = [torch.Generator().manual_seed(start + n) for n in range(len(part))]
            images += pipe(part, num_inference_steps=steps, guidance_scale=guidance, generator=seeds).images
    return images


def sample_sheet(folder: Path, path: Path) -> None:
    """Draw the showcase's prompts with the pipeline in `folder`."""
    sheet(generate(folder, PROMPTS), list(PROMPTS), 8, path)
