"""A pico Stable Diffusion pipeline: real classes, random weights, a few thousand parameters, no download."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from orthoplex.adapters import LowRank
from orthoplex.concepts import BaseIdentity, Concept, Manifest, Token, token_names
from orthoplex.concepts.tokens.keys_values import KeysValues
from orthoplex.concepts.tokens.layer_vectors import LayerVectors
from orthoplex.concepts.tokens.token import TEXT_ENCODER
from orthoplex.concepts.tokens.vector import Vector
from orthoplex.models import Base

WORDS = (
    "a an the of in on with and at by photo picture drawing painting style person woman man cat dog car forest city "
    "beach room night day red green blue"
).split()
TEXT_WIDTH = 24
METHOD_OPTIONS: dict[str, dict[str, object]] = {"dual": {"layers": "cross-attention-kv"}}
"""Method to the training options that it cannot do without."""
MAX_LENGTH = 32


def byte_letters() -> list[str]:
    """The 256 printable letters that byte-level byte-pair encoding uses for the 256 bytes."""
    kept = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in kept]
    return [chr(byte) for byte in kept] + [chr(256 + i) for i in range(len(moved))]


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """A byte-pair tokenizer that knows ``WORDS`` and falls back to bytes for the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = byte_letters()
    vocabulary = [*letters, *(letter + "</w>" for letter in letters)]
    merges: list[str] = []
    for word in sorted(WORDS, key=len, reverse=True):
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            pair = f"{parts[0]} {parts[1]}"
            if pair not in merges:
                merges.append(pair)
            parts = [parts[0] + parts[1], *parts[2:]]
            if parts[0] not in vocabulary:
                vocabulary.append(parts[0])
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": MAX_LENGTH})
    )
    return CLIPTokenizer.from_pretrained(folder)


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A two-layer CLIP text encoder of width ``TEXT_WIDTH``."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=MAX_LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_unet() -> UNet2DConditionModel:
    """A two-level denoiser on 8x8x4 latents with cross-attention on the lower level."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=2,
        cross_attention_dim=TEXT_WIDTH,
        use_linear_projection=True,
    )


def build_autoencoder() -> AutoencoderKL:
    """A three-level autoencoder: 32x32 pictures to 8x8x4 latents."""
    return AutoencoderKL(
        sample_size=32,
        block_out_channels=(8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=1.0,
    )


def build_pico(folder: Path, *, seed: int = 0) -> Path:
    """Save a pico pipeline into ``folder`` and return the folder; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_tokenizer(folder.with_name(folder.name + "-vocabulary"))
        pipeline = StableDiffusionPipeline(
            vae=build_autoencoder(),
            text_encoder=build_text_encoder(tokenizer),
            tokenizer=tokenizer,
            unet=build_unet(),
            scheduler=DDIMScheduler(
                beta_schedule="scaled_linear", clip_sample=False, timestep_spacing="trailing", steps_offset=1
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.save_pretrained(folder)
    return folder


PICO_IDENTITY = BaseIdentity(family="sd1", hash="0" * 64, name="pico")


def make_manifest(name: str = "anna", *, base: BaseIdentity = PICO_IDENTITY, kind: str = "person") -> Manifest:
    """A manifest with plain values; its content is filled in on saving."""
    return Manifest(
        name=name,
        kind=kind,
        class_word="person",
        trigger=f"<{name}> person",
        base=base,
        method="lora",
        adapter={"method": "lora", "rank": 2},
        training={"steps": 5},
        created="2026-01-01T00:00:00+00:00",
    )


def tokens_of(
    vectors: Mapping[str, Tensor],
    layers: Sequence[str] = (),
    keys_values: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> dict[str, Token]:
    """Tokens of the kinds that their numbers say.

    Args:
        vectors: Token to ``(dim,)``, or to ``(L, dim)`` with a row for each of the layers.
        layers: The L cross-attention layers.
        keys_values: Token to layer to ``(2, out)``; a token that is missing here has none.
    """
    tokens: dict[str, Token] = {}
    for token, vector in vectors.items():
        if keys_values and token in keys_values:
            tokens[token] = KeysValues.of(vector, keys_values[token])
        else:
            tokens[token] = LayerVectors.of(vector, tuple(layers)) if vector.ndim == 2 else Vector.of(vector)
    return tokens


def vectors_of(tokens: Mapping[str, Token]) -> dict[str, Tensor]:
    """Token to what stands in the place of its embedding, ``(dim,)`` or ``(L, dim)``."""
    return {token: item.placement.vectors[TEXT_ENCODER] for token, item in tokens.items()}


def plain_tokens(tokens: Mapping[str, Token]) -> dict[str, Token]:
    """The same tokens without keys and values."""
    return {
        token: Vector.of(item.vectors[TEXT_ENCODER]) if isinstance(item, KeysValues) else item
        for token, item in tokens.items()
    }


def linear_layers(base: Base, selection: str, text_encoder: bool = False) -> dict[str, nn.Linear]:
    """The linear layers of a selection, by name."""
    return {name: layer.linear for name, layer in base.family.layers(selection, text_encoder=text_encoder).items()}


def make_concept(
    base: Base,
    name: str = "anna",
    *,
    selection: str = "attention",
    text_encoder: bool = False,
    ranks: Sequence[int] = (2,),
    scale: float = 0.1,
    num_vectors: int = 1,
    layerwise: bool = False,
    keys_values: bool = False,
    seed: int = 0,
) -> Concept:
    """A concept of a base with random factors; layers take the ranks in turn, selection ``none`` has no layers.

    Entries of each change are of size ``scale``, token vectors of the size of the base's own; ``layerwise`` gives
    every cross-attention layer vectors of its own, ``keys_values`` keys and values, each about as large as the base's.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = {}
    chosen = {} if selection == "none" else linear_layers(base, selection, text_encoder=text_encoder)
    for i, (layer, linear) in enumerate(chosen.items()):
        rank = ranks[i % len(ranks)]
        layers[layer] = LowRank(
            up=torch.randn(linear.out_features, rank, generator=generator) * scale / rank**0.5,
            down=torch.randn(rank, linear.in_features, generator=generator),
        )
    size = base.pipeline.text_encoder.get_input_embeddings().weight.std().float()
    names = token_names(name, num_vectors) if num_vectors else ()
    token_layers = base.cross_attention_layers if layerwise else ()
    shape = (len(token_layers), TEXT_WIDTH) if layerwise else (TEXT_WIDTH,)
    vectors = {token: torch.randn(shape, generator=generator) * size for token in names}
    added = {
        token: {layer: torch.randn(2, width, generator=generator) for layer, width in base.key_widths.items()}
        for token in (names if keys_values else ())
    }
    return Concept(make_manifest(name, base=base.identity), layers, tokens_of(vectors, token_layers, added))
