"""Training on a frozen base whose denoiser is quantised."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orthoplex.concepts import load_concept
from orthoplex.models import load_base
from orthoplex.training import train
from tests.quantised import write_gguf


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("bnb-4bit", {"method": "lora"}),
        pytest.param(
            "bnb-8bit",
            {"token_vectors": "keys-and-values", "layers": "cross-attention-kv", "text_encoder": True},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "torchao-int8",
            {"erasure_form": "closed-form", "sample_every": 2, "layers": "linear"},
            marks=pytest.mark.slow,
        ),
        pytest.param("torchao-fp8", {}, marks=pytest.mark.slow),
        ("gguf", {}),
    ],
)
def test_a_concept_is_trained_on_a_quantised_base(kind, changes, pico_folder, dataset, config, tmp_path):
    if kind == "gguf":
        weights = pico_folder / "unet" / "diffusion_pytorch_model.safetensors"
        base = load_base(pico_folder, denoiser=write_gguf(weights, tmp_path / "unet.gguf"))
    else:
        base = load_base(pico_folder, quantise=kind)
    records = list(train(base, dataset, replace(config, steps=2, **changes), output=tmp_path / "anna.safetensors"))
    concept = load_concept(records[-1].output)
    assert concept.manifest.base == base.identity
    assert any(float(factors.up.abs().max()) > 0 for factors in concept.layers.values())
    assert not any(module._forward_hooks for module in base.pipeline.unet.modules())
    if kind != "gguf":  # whose numbers are all that is known of its base
        plain = load_base(pico_folder)
        with plain.folded(concept):
            assert concept.manifest.base == plain.identity
