"""Safetensors files of other programs are named for what they are, with the cure."""

import pytest
import torch
from safetensors.torch import save_file

from orthoplex.concepts import load_concept, read_manifest
from orthoplex.errors import ConceptFileError

W = torch.ones(4, 4)
ALPHA = torch.tensor(4)
UNET = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
KOHYA = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
YET = "not a concept of Orthoplex; orthoplex inspect and orthoplex convert read it"


@pytest.mark.parametrize(
    ("tensors", "metadata", "words"),
    [
        (
            {f"{KOHYA}.lora_down.weight": W, f"{KOHYA}.alpha": ALPHA},
            {},
            f"is a LoRA of kohya's sd-scripts, {YET}",
        ),
        ({f"{KOHYA}.alpha": ALPHA}, {}, "is a LoRA of kohya's sd-scripts"),
        ({"lora_te1_text_model_a.lora_up.weight": W}, {"ss_steps": "1"}, "is a LoRA of kohya's sd-scripts"),
        ({f"{UNET}.lora_A.weight": W}, None, f"is a LoRA of diffusers, {YET}"),
        ({f"{UNET}.lora.down.weight": W}, None, "is a LoRA of diffusers"),
        ({"transformer.blocks.0.lora_A.default.weight": W}, None, "is a LoRA of diffusers"),
        ({"base_model.model.a.lora_A.weight": W, "base_model.model.a.alpha": ALPHA}, None, "is a LoRA of PEFT"),
        ({"diffusion_model.layers.0.lora_A.weight": W}, {}, "is a LoRA of ai-toolkit or ComfyUI"),
        ({f"{KOHYA}.hada_w1_a": W}, {}, "is a LoRA of LyCORIS"),
        (
            {f"{KOHYA}.lokr_w1": W, f"{KOHYA}.alpha": ALPHA},
            {"ss_x": ""},
            "is a LoRA of LyCORIS (trained by sd-scripts)",
        ),
        ({"blocks.0.q.lora_A.weight": W, "n": torch.ones(1, dtype=torch.int8)}, {}, "is a LoRA of another program"),
        ({f"{KOHYA}.weight": W, f"{KOHYA}.on_input": W[0]}, {}, "is an IA3 file (LyCORIS), not a concept of Orthoplex"),
        ({"base_model.model.a.ia3_l": W}, {}, "is an IA3 file (LyCORIS)"),
        ({f"{KOHYA}.diff": W, f"{KOHYA}.diff_b": W[0]}, {"ss_x": ""}, "is a file of full differences of weights (LyCO"),
        ({"emb_params": W}, {}, "is a textual-inversion embedding of another program, not a concept file"),
        ({"clip_l": W, "clip_g": W}, None, "is a textual-inversion embedding"),
        ({"<cat-toy>": torch.ones(768)}, None, "is a textual-inversion embedding"),
        ({"any": torch.ones(3, 1024, dtype=torch.float64)}, None, "is a textual-inversion embedding"),
        ({"model.diffusion_model.a.weight": W, "x.alpha": ALPHA}, {}, "is a whole model in one file"),
        (
            {"first_stage_model.a": W},
            {},
            "is a whole model in one file, not a concept file; a base is a pipeline folder",
        ),
        ({"down_blocks.0.a.weight": W, "conv_in.bias": W}, {}, "is one network of a model"),
        ({"text_model.encoder.layers.0.a": W}, {}, "is one network of a model"),
        ({"control_model.a": W}, {}, "is a ControlNet"),
        (
            {"a": W},
            {"orthoplex_checkpoint": "{}"},
            "is the checkpoint of a training, not a concept file; the concept is the file without",
        ),
        ({"a": W}, {"b": "c"}, "is not a concept file: header key 'orthoplex' is missing, found b"),
        ({}, None, "is not a concept file: header key 'orthoplex' is missing, found none"),
    ],
)
def test_a_file_without_a_manifest_is_named_for_what_it_is(tmp_path, tensors, metadata, words):
    path = tmp_path / "anna.safetensors"
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path, metadata=metadata)
    for read in (load_concept, read_manifest):
        with pytest.raises(ConceptFileError) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: {words}") and "\n" not in str(error.value)
