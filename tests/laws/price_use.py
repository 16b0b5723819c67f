"""Uses what ``test_prices.py`` added to a copy of the package, and prints what came of it as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler
from PIL import Image
from typer.testing import CliRunner

import orthoplex
from orthoplex.cli import app
from orthoplex.concepts import load_concept
from orthoplex.generation import generate
from orthoplex.merging import merge
from orthoplex.models import load_base, training_defaults
from orthoplex.training import ConceptDataset, TrainingConfig, train
from tests.pico import build_autoencoder, build_pico, build_text_encoder, build_tokenizer, make_concept

STEP = {"steps": 1, "batch_size": 2, "num_vectors": 1, "erasure": 0.0, "slots": 4, "mixed_precision": "no", "warmup": 0}


def trained(base, folder, options):
    """A concept that was trained for a step, read back from its file."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{i}.png")
    size = base.family.resolution
    dataset = ConceptDataset.from_folder(pictures, resolution=size, token="<anna>", class_word="cat")
    config = TrainingConfig.from_mapping({**STEP, **options})
    for _ in train(base, dataset, config, output=folder / "anna.safetensors"):
        pass
    return load_concept(folder / "anna.safetensors", base=base.identity)


def drawn(base, merged=None, prompt="a photo of a cat"):
    """A picture, as numbers."""
    options = {"num_images": 1, "seed": 0, "num_inference_steps": 2, "guidance_scale": 3.0, "negative_prompt": ""}
    (image,) = generate(base, prompt, merge=merged, **options)
    return image.size, np.asarray(image).astype(float)


def moved(base, merged):
    """The size of a picture with a merge, and how far it is from that of the base."""
    size, inside = drawn(base, merged, "a photo of <anna>")
    return {"size": list(size), "moved": float(abs(inside - drawn(base)[1]).mean())}


def algorithm(base):
    """Merge with the option, and read what the command lists."""
    both = [(make_concept(base, name, scale=9.0, seed=i), 1.0) for i, name in enumerate(("anna", "rex"))]
    merged = merge(both, algorithm="limited", options={"limit": 0.5})
    norms = [stack.only([owner]).delta().norm().item() for stack in merged.layers.values() for owner in merged.owners]
    refused = CliRunner().invoke(app, ["merge", "a.safetensors", "--output", "nowhere", "--algorithm", "nothing"])
    recipe = merged.recipe.to_json()
    return {"recipe": [recipe["algorithm"], recipe["options"]], "largest": max(norms), "listing": refused.output}


def token(base, folder):
    """Train a step, read it back, merge it, draw it."""
    concept = trained(base, folder, {"token_vectors": "length", "token_learning_rate": 0.5})
    (item,) = concept.tokens.values()
    vector, start = item.placement.vectors["text_encoder"], base.family.words.class_vector("cat")
    header = concept.manifest
    return {
        "kind": item.kind,
        "needs": json.loads(orthoplex.concepts.manifest_to_json(header))["needs"],
        "has_inputs": header.has_inputs,
        "length": vector.norm().item(),
        "length_before": start.norm().item(),
        "turned": 1 - torch.cosine_similarity(vector, start, dim=0).item(),
        **moved(base, merge([(concept, 1.0)])),
    }


def family(folder):
    """Build a folder, load it, and do everything that a base is for."""
    from orthoplex.models.families.tiny import TinyDenoiser, TinyPipeline

    torch.manual_seed(0)
    tokenizer = build_tokenizer(folder / "vocabulary")
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    parts = {"vae": build_autoencoder(), "text_encoder": build_text_encoder(tokenizer), "tokenizer": tokenizer}
    TinyPipeline(**parts, denoiser=TinyDenoiser(), scheduler=scheduler).save_pretrained(folder / "tiny")
    base = load_base(folder / "tiny")
    conditioning = base.family.condition(["a cat"])
    noise = base.family.noise(1, torch.Generator().manual_seed(0))
    concept = trained(base, folder / "training", {"token_vectors": "layer-wise", "learning_rate": 0.5})
    (item,) = concept.tokens.values()
    shared = trained(base, folder / "shared", {"learning_rate": 0.5})
    with base.folded(merge([(shared, 1.0)])):
        base.save(folder / "merged")
        inside = drawn(base, prompt="a photo of <anna>")[1]
    again = load_base(folder / "merged")
    return {
        "identity": base.identity.family,
        "defaults": dict(training_defaults(folder / "tiny")),
        "features": list(conditioning.features.shape),
        "prediction": list(base.family.predict(noise, torch.tensor([500]), conditioning).shape),
        "layers": list(base.family.layers("cross-attention-kv")),
        "token_vectors": list(item.placement.vectors["text_encoder"].shape),
        **moved(base, merge([(concept, 1.0)])),
        "again": float(abs(drawn(again, prompt="a photo of <anna>")[1] - inside).mean()),
        "tokens": list(again.tokens),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    work = Path(sys.argv[1])
    pico = load_base(build_pico(work / "pico"))
    told = {"algorithm": algorithm(pico), "token": token(pico, work / "token"), "family": family(work / "family")}
    print(json.dumps({"package": str(Path(orthoplex.__file__).parent), **told}))
