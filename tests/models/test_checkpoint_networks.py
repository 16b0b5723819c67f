"""Networks out of checkpoint files, one at a time: the names of SDXL, of OpenCLIP, of T5 and of FLUX.1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderTiny,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    QwenImageTransformer2DModel,
    UNet2DConditionModel,
    ZImageTransformer2DModel,
)
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from orthoplex.errors import BaseModelError
from orthoplex.models import load_base
from orthoplex.models.checkpoint_networks import _unused, load_checkpoint_part
from orthoplex.models.families.form_of_checkpoints import CHECKPOINTS, checkpoint_class
from orthoplex.models.weight_files import CheckpointPart
from tests.checkpoints import ldm_text_encoder, ldm_unet, open_clip, original, write_checkpoint
from tests.pico_flow import build_flux

CLIP = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}


def sdxl_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        norm_num_groups=8,
        attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 2),
        cross_attention_dim=40,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=64,
    )


def sdxl_parts() -> dict[str, tuple[nn.Module, str, dict[str, Tensor]]]:
    """Component to network, the beginning of its names, and its tensors."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = sdxl_unet()
        first = CLIPTextModel(CLIPTextConfig(**CLIP))
        second = CLIPTextModelWithProjection(CLIPTextConfig(**{**CLIP, "hidden_size": 24}, projection_dim=24))
    return {
        "unet": (unet, "model.diffusion_model.", ldm_unet(unet.state_dict(), 2)),
        "text_encoder": (first, "conditioner.embedders.0.transformer.", ldm_text_encoder(first.state_dict())),
        "text_encoder_2": (second, "conditioner.embedders.1.model.", open_clip(second.state_dict())),
    }


def loaded(network: nn.Module, folder: Path, component: str, part: CheckpointPart, dtype=torch.float32) -> nn.Module:
    network.config.save_pretrained(folder / component) if component.startswith("text") else network.save_config(
        folder / component
    )
    return load_checkpoint_part(type(network), folder / component, part, dtype)


def assert_same(ours: nn.Module, theirs: nn.Module) -> None:
    left, right = ours.state_dict(), theirs.state_dict()
    assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_the_parts_of_a_file_of_sdxl(tmp_path):
    parts = sdxl_parts()
    path = write_checkpoint(tmp_path / "xl.safetensors", [(start, tensors) for _, start, tensors in parts.values()])
    names = {f"{start}{name}" for _, start, tensors in parts.values() for name in tensors}
    form = CHECKPOINTS["StableDiffusionXLPipeline"]
    assert form.fits(names) and form.held(names).keys() == parts.keys()
    for component, (network, *_) in parts.items():
        part = CheckpointPart(path, form.held(names)[component])
        assert_same(loaded(network, tmp_path, component, part), network)
        half = loaded(network, tmp_path, component, part, torch.float16)
        assert {values.dtype for values in half.parameters()} == {torch.float16}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_t5_shares_its_embedding_and_stays_wide_where_it_must(tmp_path, dtype):
    config = T5Config(
        d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu", vocab_size=9
    )
    network = T5EncoderModel(config)
    start = "text_encoders.t5xxl.transformer."
    tensors = {name: values for name, values in network.state_dict().items() if "embed_tokens" not in name}
    others = {"text_encoders.t5xxl.logit_scale": torch.ones(()), "text_encoders.t5xxl.spiece_model": torch.ones(3)}
    path = write_checkpoint(tmp_path / "all.safetensors", [(start, tensors), ("", others)])
    part = CheckpointPart(path, frozenset({*(start + name for name in tensors), *others}))
    ours = loaded(network, tmp_path, "text_encoder_2", part, dtype)
    theirs = network
    if dtype == torch.float16:
        network.save_pretrained(tmp_path / "folder")
        theirs = T5EncoderModel.from_pretrained(tmp_path / "folder", dtype=dtype)
    assert {name: values.dtype for name, values in ours.named_parameters()} == {
        name: values.dtype for name, values in theirs.named_parameters()
    }
    assert_same(ours, theirs)
    assert ours.shared.weight is ours.encoder.embed_tokens.weight


def test_a_network_that_diffusers_reads_out_of_no_file_is_refused(tmp_path):
    network = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    save_file({"vae.x": torch.zeros(1)}, tmp_path / "one.safetensors")
    part = CheckpointPart(tmp_path / "one.safetensors", frozenset({"vae.x"}))
    with pytest.raises(BaseModelError) as caught:
        loaded(network, tmp_path, "vae", part)
    assert str(caught.value) == (
        "vae is a AutoencoderTiny, which diffusers reads out of no checkpoint file; allowed is a pipeline folder"
    )


def test_a_part_of_another_form_is_one_line(tmp_path):
    network = FluxTransformer2DModel(num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2)
    name = "double_blocks.0.img_attn.qkv.weight"
    save_file({name: torch.zeros(3, 3)}, tmp_path / "flux.safetensors")
    part = CheckpointPart(tmp_path / "flux.safetensors", frozenset({name}))
    with pytest.raises(BaseModelError, match="^flux.safetensors holds another transformer than its settings say: "):
        loaded(network, tmp_path, "transformer", part)
    (tmp_path / "transformer" / "config.json").write_text(json.dumps({"num_layers": "many"}))
    with pytest.raises(BaseModelError, match="^transformer cannot be built: "):
        load_checkpoint_part(FluxTransformer2DModel, tmp_path / "transformer", part, torch.float32)


@pytest.mark.slow
def test_a_denoiser_of_flux_takes_its_other_parts_from_a_folder(tmp_path):
    """diffusers converts FLUX.1 of its published width alone: one block of each kind, a gigabyte."""
    folder = build_flux(tmp_path / "flux")
    path = folder / "transformer" / "config.json"
    wide = {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 24, "attention_head_dim": 128}
    config = json.loads(path.read_text()) | wide | {"axes_dims_rope": [16, 56, 56]}
    with torch.device("meta"):
        network = FluxTransformer2DModel.from_config(config).half()
    network = network.to_empty(device="cpu")
    for values in network.parameters():
        values.data.copy_(torch.randint(-100, 100, values.shape, dtype=torch.int8).half() / 2000)
    network.save_pretrained(folder / "transformer")
    save_file(original(network, "flux1"), tmp_path / "flux1.safetensors")
    del network
    whole = load_base(folder, dtype=torch.float16)
    base = load_base(tmp_path / "flux1.safetensors", config=folder, dtype=torch.float16)
    assert base.identity.hash == whole.identity.hash
    assert_same(base.pipeline.transformer, whole.pipeline.transformer)


def test_what_a_conversion_drops_is_named(tmp_path):
    """diffusers drops what it does not know of FLUX.1, and is not asked for files with scales of weights at all."""
    with torch.device("meta"):
        network = FluxTransformer2DModel(num_layers=1, num_single_layers=1, joint_attention_dim=8)
    tensors = original(network, "flux1")
    convert, config = convert_flux_transformer_checkpoint_to_diffusers, dict(network.config)
    other = {"double_blocks.0.other.weight": torch.empty(1, device="meta")}
    assert _unused(convert, tensors, config) == [] and _unused(convert, tensors | other, config) == [*other]
    names = frozenset(["img_in.weight", "double_blocks.0.img_attn.qkv.scale_weight", "scaled_fp8"])
    part = CheckpointPart(tmp_path / "flux1-dev-fp8.safetensors", names)
    with pytest.raises(BaseModelError) as caught:
        load_checkpoint_part(FluxTransformer2DModel, tmp_path / "transformer", part, torch.float32)
    assert str(caught.value) == (
        "flux1-dev-fp8.safetensors holds 2 tensors that its transformer has not: "
        "double_blocks.0.img_attn.qkv.scale_weight, scaled_fp8; the weights are quantised; allowed are plain ones of "
        "16 or 32 bits"
    )


ORIGINALS = {
    "z-image": lambda: ZImageTransformer2DModel(
        dim=64, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16, axes_dims=[8, 12, 12]
    ),
    "flux2-klein-4b": lambda: Flux2Transformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=24, guidance_embeds=False, axes_dims_rope=(4, 4, 4, 4),
    ),
    "qwen-image": lambda: QwenImageTransformer2DModel(
        num_layers=1, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=24, axes_dims_rope=(4, 6, 6)
    ),
}  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("version", ORIGINALS)
def test_a_transformer_is_read_under_the_names_of_its_own_code(tmp_path, version, prefix):
    network = ORIGINALS[version]()
    for values in network.parameters():
        values.data.uniform_(-1, 1)
    tensors = {f"{prefix}{name}": values.contiguous() for name, values in original(network, version).items()}
    save_file(tensors, tmp_path / "one.safetensors")
    kind = checkpoint_class(tensors)
    assert kind is not None
    names = CHECKPOINTS[kind].held(tensors)["transformer"]
    assert names == tensors.keys()
    assert_same(loaded(network, tmp_path, "transformer", CheckpointPart(tmp_path / "one.safetensors", names)), network)
