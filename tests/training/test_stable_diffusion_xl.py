"""Stable Diffusion XL: trained, resumed, erased and merged as other bases are."""

from contextlib import closing
from dataclasses import replace
from itertools import islice

import pytest
import torch

from orthoplex.activations import merge_for
from orthoplex.concepts import load_concept
from orthoplex.models import load_base
from orthoplex.training import ConceptDataset, TrainingConfig, train
from tests.pico_xl import WIDTHS
from tests.training.test_loop import assert_same_concept, last_of


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
        {},
        {"token_vectors": "layer-wise", "prior_weight": 0.5},
        {"token_vectors": "keys-and-values"},
        {"layers": "attention", "text_encoder": True, "erasure_form": "activation", "prior_weight": 0.5},
        {"layers": "cross-attention", "erasure_form": "prediction"},
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
    components = {name.partition(".")[0] for name in concept.layers}
    assert components == ({"unet", *WIDTHS} if options.get("text_encoder") else {"unet"})


def test_a_resumed_training_is_an_unbroken_one(base, dataset, config, tmp_path):
    whole, broken = tmp_path / "whole" / "anna.safetensors", tmp_path / "broken" / "anna.safetensors"
    last_of(train(base, dataset, config, output=whole))
    with closing(train(base, dataset, config, output=broken)) as records:
        list(islice(records, 3))
    last_of(train(base, dataset, config, output=broken, resume=True))
    assert_same_concept(whole, broken)


def test_a_merge_takes_stored_inputs_of_the_width_of_both_text_encoders(base, folder, config, tmp_path):
    concepts = []
    for name in ("anna", "rex"):
        output = tmp_path / f"{name}.safetensors"
        dataset = ConceptDataset.from_folder(
            folder, resolution=32, token=f"<{name}>", class_word="person", kind="person"
        )
        last_of(train(base, dataset, replace(config, steps=2), output=output))
        concepts.append((load_concept(output, base=base.identity), 1.0))
    assert all(
        concept.inputs is not None and concept.inputs.shape[1] == sum(WIDTHS.values()) for concept, _ in concepts
    )
    merged = merge_for(base, concepts, algorithm="least-squares")
    assert merged.tokens.keys() >= {"<anna>", "<rex>"}
    with base.folded(merged), torch.no_grad():
        assert base.family.condition(["a <anna> and a <rex>"]).features.isfinite().all()
