"""A base is checked when it is loaded: it works, or one line names the part and what is allowed."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AsymmetricAutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from orthoplex.errors import BaseModelError
from orthoplex.generation import generate
from orthoplex.models import load_base
from orthoplex.models.families import latent, latent_check
from orthoplex.models.words.words import Reader

UNET, VAE, TEXT = "unet/config.json", "vae/config.json", "text_encoder/config.json"
SCHEDULER, INDEX = "scheduler/scheduler_config.json", "model_index.json"
TOKENIZER = "tokenizer/tokenizer_config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(pico_folder, tmp_path):
    """A copy of the pipeline folder that a test may change."""
    return shutil.copytree(pico_folder, tmp_path / "base")


def change(folder, file, **values):
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refusal(folder):
    """The one line that refuses a base."""
    with pytest.raises(BaseModelError) as caught:
        load_base(folder)
    line = str(caught.value)
    assert "\n" not in line and str(folder) in line
    return line


def drawn(folder):
    (picture,) = generate(load_base(folder), "a cat", num_inference_steps=2)
    return np.asarray(picture)


@pytest.mark.parametrize(
    ("file", "values", "expected"),
    [
        (UNET, {"sample_size": [8, 16]}, "unet sample_size is [8, 16]; allowed is a number from 1, or a pair of the s"),
        (UNET, {"sample_size": None}, "unet sample_size is None; allowed is"),
        (UNET, {"sample_size": 0}, "unet sample_size is 0; allowed is"),
        (UNET, {"sample_size": "64"}, "unet sample_size is '64'; allowed is"),
        (UNET, {"class_embed_type": "identity"}, "unet needs labels of classes (class_embed_type is 'identity');"),
        (VAE, {"scaling_factor": 0}, "vae scaling_factor is 0; allowed is a number other than 0"),
        (VAE, {"scaling_factor": None}, "vae scaling_factor is None"),
        (VAE, {"shift_factor": "no"}, "vae shift_factor is 'no'; allowed is a number"),
        (TOKENIZER, {"model_max_length": 77}, "tokenizer gives up to 77 tokens, allowed are t"),
        (TOKENIZER, {"model_max_length": 2}, "tokenizer model_max_length is 2; allowed are 3 "),
        (TOKENIZER, {"model_max_length": "32"}, "tokenizer model_max_length is '32'; allowed are 3 to 32"),
        (TEXT, {"num_attention_heads": -2}, "text_encoder cannot be used: RuntimeError: "),
        (TEXT, {"layer_norm_eps": None}, "text_encoder cannot be used: TypeError: "),
        (VAE, {"norm_num_groups": True}, "vae cannot be used: TypeError: "),
        (VAE, {"down_block_types": []}, "tensors that its vae has not: "),
        (VAE, {"layers_per_block": 0}, "tensors that its vae has not: "),
        (SCHEDULER, {"trained_betas": 0.5}, "scheduler DDIMScheduler has 1 betas; allowed are a list of 1000"),
        (SCHEDULER, {"prediction_type": "flow"}, "scheduler predicts 'flow'; allowed are epsilon, v_prediction"),
        (SCHEDULER, {"beta_schedule": "linear", "beta_start": 1.5}, "scheduler DDIMScheduler has alphas_cumprod outsi"),
        (SCHEDULER, {"trained_betas": [0.1, 0.2]}, "scheduler DDIMScheduler has 2 betas; allowed are a list of 1000"),
        (SCHEDULER, {"use_flow_sigmas": True}, "scheduler use_flow_sigmas is True; allowed is False"),
        (INDEX, {"vae": None}, "model_index.json names no vae; a base needs it"),
        (INDEX, {"unet": [None, None]}, "model_index.json names no unet; a base needs it"),
        (INDEX, {"unet": "UNet2DConditionModel"}, "model_index.json says 'UNet2DConditionModel' for unet; allowed is"),
        (INDEX, {"vae": ["my_vae", "MyVae"]}, "vae is 'my_vae.MyVae', which is code of its own and is not run"),
        (INDEX, {"vae": ["diffusers", "ConsistencyDecoderVAE"]}, "vae is a ConsistencyDecoderVAE, allowed are Autoenc"),
        (INDEX, {"unet": ["diffusers", "ControlNetModel"]}, "unet is a ControlNetModel, allowed are UNet2DConditionMo"),
        (INDEX, {"text_encoder": ["transformers", "T5EncoderModel"]}, "text_encoder is a T5EncoderModel, allowed are"),
        (
            INDEX,
            {"text_encoder": ["transformers", "CLIPTextModelWithProjection"]},
            "text_encoder is a CLIPTextModelWithProjection, allowed are CLIPTextModel",
        ),
        (INDEX, {"tokenizer": ["transformers", "CLIPTextModel"]}, "tokenizer is a CLIPTextModel, allowed are tokenize"),
        (INDEX, {"scheduler": ["diffusers", "AutoencoderKL"]}, "scheduler is a AutoencoderKL, allowed are schedulers"),
        (INDEX, {"scheduler": ["diffusers", "DPMSolverSDEScheduler"]}, "scheduler cannot be read: ImportError: DPMSol"),
        (
            INDEX,
            {"scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]},
            "scheduler FlowMatchEulerDiscreteScheduler is of no discrete schedule: ",
        ),
        (INDEX, {"scheduler": ["diffusers", "DDIMInverseScheduler"]}, "scheduler DDIMInverseScheduler cannot denoise:"),
    ],
)  # fmt: skip
def test_a_setting_that_does_not_fit_is_named(folder, file, values, expected):
    change(folder, file, **values)
    assert expected in refusal(folder)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"in_channels": 9}, "unet reads 9 channels, as for inpainting or depth; allowed are the 4 of the vae's laten"),
        ({"out_channels": 8}, "unet predicts 8 channels, as with a learned variance; allowed are 4"),
        ({"cross_attention_dim": 32}, "unet reads text of width 32; allowed is that of the text_encoder, 24"),
        ({"cross_attention_dim": (24, 24)}, "unet cross_attention_dim is [24, 24]; allowed is one number"),
        ({"num_class_embeds": 3}, "unet needs labels of classes (num_class_embeds is 3); allowed is none"),
        (
            {"addition_embed_type": "text"},
            "unet needs added conditions, as Stable Diffusion XL has them (addition_embed_type is 'text'); allowed is",
        ),
        (
            {"encoder_hid_dim_type": "image_proj", "encoder_hid_dim": 16},
            "unet needs conditions of pictures (encoder_hid_dim_type is 'image_proj'); allowed is text",
        ),
        ({"class_embeddings_concat": True}, "unet cannot be used: "),
    ],
)  # fmt: skip
def test_a_unet_that_takes_other_things_is_named(folder, pico, values, expected):
    config = {key: value for key, value in pico.pipeline.unet.config.items() if not key.startswith("_")}
    UNet2DConditionModel(**{**config, **values}).save_pretrained(folder / "unet")
    assert expected in refusal(folder)


def test_a_unet_of_another_form_that_works_is_taken(folder, pico):
    config = {key: value for key, value in pico.pipeline.unet.config.items() if not key.startswith("_")}
    values = {"encoder_hid_dim_type": "text_proj", "encoder_hid_dim": 24, "cross_attention_dim": 16}
    UNet2DConditionModel(**{**config, **values, "mid_block_type": None}).save_pretrained(folder / "unet")
    assert drawn(folder).shape == (32, 32, 3)
    assert load_base(folder, dtype=torch.float16).dtype == torch.float16  # the trial is in the type of the weights


@pytest.mark.parametrize("size", [[8, 8], 8])
def test_a_square_size_may_be_a_pair(folder, size):
    change(folder, UNET, sample_size=size)
    assert load_base(folder).family.resolution == 32 and drawn(folder).shape == (32, 32, 3)


SMALL = {
    "AutoencoderTiny": AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    ),
    "AsymmetricAutoencoderKL": AsymmetricAutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        down_block_out_channels=(8, 8, 8),
        up_block_types=("UpDecoderBlock2D",) * 3,
        up_block_out_channels=(8, 8, 8),
        norm_num_groups=4,
    ),
}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.slow
def test_other_autoencoders_draw_encode_and_are_hashed(folder, pico, name):
    SMALL[name].save_pretrained(folder / "vae")
    change(folder, INDEX, vae=["diffusers", name])
    base = load_base(folder)
    assert drawn(folder).shape == (32, 32, 3)
    assert base.family.latents(torch.zeros(1, 3, 32, 32)).shape == (1, 4, 8, 8)
    assert base.identity.hash == pico.identity.hash
    assert base.family.inputs_hash() != pico.family.inputs_hash()
    assert base.family.outputs_hash() != pico.family.outputs_hash()


def test_an_autoencoder_of_other_latents_is_named(folder):
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
        latent_channels=8,
    ).save_pretrained(folder / "vae")
    change(folder, INDEX, vae=["diffusers", "AutoencoderTiny"])
    assert "unet reads 4 channels; allowed are the 8 of the vae's latents" in refusal(folder)


def test_pictures_of_other_channels_are_named(pico):
    config = dict(pico.pipeline.vae.config) | {"in_channels": 4}
    with pytest.raises(BaseModelError, match="vae in_channels is 4; allowed is 3, for red, green and blue"):
        latent_check.check_autoencoder(config)


def test_more_tokens_than_embeddings_are_named(folder):
    path = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    (name,) = (name for name in tensors if name.endswith("token_embedding.weight"))
    rows = len(tensors[name]) - 1
    save_file(tensors | {name: tensors[name][:rows].clone()}, path, metadata={"format": "pt"})
    change(folder, TEXT, vocab_size=rows)
    expected = (
        f"tokenizer numbers its tokens up to {rows}; allowed is {rows - 1}, as text_encoder has {rows} embeddings"
    )
    assert expected in refusal(folder)


@pytest.mark.parametrize("file", [VAE, SCHEDULER])
@pytest.mark.parametrize(
    ("text", "expected"), [('"text"', "holds 'text'; allowed is a JSON object"), ("{", "is damaged")]
)
def test_a_file_of_settings_that_holds_none_is_named(folder, capfd, file, text, expected):
    """diffusers takes a text in the place of an object for a name, and asks the net for it."""
    (folder / file).write_text(text)
    assert f"{file} {expected}" in refusal(folder) and capfd.readouterr() == ("", "")


def test_a_network_without_settings_is_named(folder):
    (folder / UNET).unlink()
    assert "unet/config.json is missing, which its network is built by" in refusal(folder)


@pytest.mark.parametrize("mark", ["bos", "eos", "pad"])
def test_a_tokenizer_without_a_mark_is_named(pico, mark, monkeypatch):
    monkeypatch.setattr(type(pico.pipeline.tokenizer), f"{mark}_token_id", None, raising=False)
    with pytest.raises(BaseModelError, match=f"tokenizer has no {mark}_token; a prompt needs begin, end and filling"):
        latent_check.check_reader(Reader(pico.pipeline))


def test_a_tokenizer_that_sets_no_marks_is_named(folder, pico, monkeypatch):
    kind = type(pico.pipeline.tokenizer)
    monkeypatch.setattr(kind, "__call__", lambda *arguments, **options: SimpleNamespace(input_ids=[5, 6]))
    begin, end = pico.pipeline.tokenizer.bos_token_id, pico.pipeline.tokenizer.eos_token_id
    assert f"tokenizer makes [5, 6] of 'a'; allowed are {begin}, words, {end}" in refusal(folder)

    def failing(*arguments, **options):
        raise ValueError("two\nlines")

    monkeypatch.setattr(kind, "__call__", failing)
    assert "tokenizer cannot read a prompt: ValueError: two lines" in refusal(folder)


def test_a_network_of_another_shape_is_named(pico):
    inputs = (torch.zeros(1, 2, device="meta"),)
    with pytest.raises(BaseModelError, match=r"vae gives a tensor of shape \(1, 2\); allowed is \(3,\)"):
        latent_check.try_network("vae", pico.pipeline.vae, {}, lambda network, values: values, inputs, (3,))


@pytest.mark.parametrize("name", ["tokenizer", "unet", "vae"])
def test_a_missing_part_is_named(folder, name):
    shutil.rmtree(folder / name)
    assert f"its folder '{name}' is missing, which model_index.json names" in refusal(folder)


def test_parts_without_their_files_are_named(folder):
    (folder / "tokenizer" / "tokenizer.json").unlink()
    assert "tokenizer has no words; allowed are tokenizer.json or vocab.json with merges.txt" in refusal(folder)
    shutil.copytree(folder / "unet", folder / "tokenizer", dirs_exist_ok=True)
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    assert "tokenizer cannot be read: " in refusal(folder)


def test_a_missing_schedule_is_named(folder):
    (folder / SCHEDULER).unlink()
    assert "scheduler/scheduler_config.json is missing, which a DDIMScheduler needs" in refusal(folder)


def test_a_network_that_cannot_be_built_is_named(folder):
    change(folder, TEXT, hidden_act="shouting")
    assert "text_encoder cannot be built: KeyError: " in refusal(folder)


def test_latents_have_the_type_of_the_denoiser(pico_folder, monkeypatch):
    """A text encoder may compute in a narrower one."""
    base, types = load_base(pico_folder), []
    base.pipeline.text_encoder.half()
    whole = latent.randn_tensor
    monkeypatch.setattr(
        latent, "randn_tensor", lambda *a, dtype, **o: types.append(dtype) or whole(*a, dtype=dtype, **o)
    )
    generate(base, "a cat", num_inference_steps=1)
    assert types == [torch.float32]
