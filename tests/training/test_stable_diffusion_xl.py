"""Stable Diffusion XL: trained with every kind of token, and with layers of both text encoders."""

from dataclasses import replace

import pytest

from orthoplex.concepts import load_concept
from orthoplex.models import load_base
from orthoplex.training import TrainingConfig, train
from tests.pico_xl import WIDTHS
from tests.training.test_loop import last_of


@pytest.fixture(scope="module")
def base(pico_xl_folder):
    return load_base(pico_xl_folder)


@pytest.fixture
def config():
    return TrainingConfig(
        steps=5,
        batch_size=2,
        slots=4,
        mixed_precision="no",
        erasure_prompts=8,
        prior_pictures=2,
        prior_inference_steps=1,
        num_inference_steps=2,
        thumbnail="none",
    )


@pytest.mark.parametrize(
    "options",
    [
        {"token_vectors": "layer-wise", "prior_weight": 0.5},
        {"token_vectors": "keys-and-values"},
        {"layers": "attention", "text_encoder": True, "erasure_form": "activation", "prior_weight": 0.5},
    ],
    ids=lambda options: ",".join(map(str, options.values())) or "defaults",
)
def test_a_training_ends_with_a_concept_in_both_text_encoders(base, dataset, config, tmp_path, options):
    output = tmp_path / "anna.safetensors"
    last = last_of(train(base, dataset, replace(config, **options), output=output))
    concept = load_concept(output, base=base.identity)
    assert last.steps == last.step and base.tokens == ()
    for token in concept.tokens.values():
        assert {name: rows.shape[-1] for name, rows in token.placement.vectors.items()} == WIDTHS
    assert all(change.delta().isfinite().all() for change in concept.layers.values())
    if options.get("token_vectors") == "keys-and-values":  # whose layers all read the same, of both
        assert concept.inputs is not None and concept.inputs.shape[1] == sum(WIDTHS.values())
    components = {name.partition(".")[0] for name in concept.layers}
    assert components == ({"unet", *WIDTHS} if options.get("text_encoder") else {"unet"})
