"""Adoption of foreign LoRA files, and data-aware merges with their convolutions, norms and biases."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from orthoplex.activations import ErasureOptions, adopt, gather_grams, gather_inputs, merge_for, with_erasure
from orthoplex.activations.adoption import Adoption
from orthoplex.activations.own_prompts import NUM_GENERAL, own_prompts
from orthoplex.adapters import LowRank
from orthoplex.concepts import Concept, load_concept, save_concept
from orthoplex.errors import CapacityError, ConfigurationError
from orthoplex.merging import ALGORITHMS
from orthoplex.models import Base
from orthoplex.subspaces import BASIS_ID, shared_basis_rows
from tests.models.test_folding_parameters import BIAS, CONVOLUTION, NORM, wide
from tests.pico import make_concept, make_manifest

SHORTCUT = "unet.down_blocks.1.resnets.0.conv_shortcut"
OPTIONS = ErasureOptions(weight=10.0, num_prompts=8, prior_pictures=2, prior_inference_steps=1)
FOREIGN = ("a photo of a cat", "a dog in a forest", "", "a red car", "a woman in a city", "a green room at night")


def foreign(base: Base, name: str = "anna", trigger: str = "sks person", **options) -> Concept:
    """A concept without tokens, as another program's file becomes one."""
    concept = make_concept(base, name, num_vectors=0, selection="cross-attention-kv", scale=1.0, **options)
    return replace(concept, manifest=replace(concept.manifest, trigger=trigger, kind="other"))


def quiet(base: Base, concept: Concept, **options) -> Adoption:
    return adopt(base, concept, OPTIONS, foreign_prompts=FOREIGN, **options)


def test_words_alone_call_an_adopted_concept(base, tmp_path):
    adoption = quiet(base, foreign(base, text_encoder=True))
    assert len(adoption.energy_kept) == len(adoption.concept.layers) and adoption.unsolved == ()
    assert 0 <= adoption.mean_elsewhere < 0.5 * adoption.mean_kept <= 0.5
    saved = save_concept(adoption.concept, tmp_path / "anna.safetensors")
    assert load_concept(tmp_path / "anna.safetensors").manifest == saved
    assert (saved.trigger, saved.training["erasure"], saved.slot) == ("sks person", 10.0, None)


def test_what_is_reported_is_what_the_weights_do(base):
    before = foreign(base)
    adoption = quiet(base, before)
    layer = next(iter(before.layers))
    grams = gather_grams(base, [layer], own_prompts(base, before.manifest))
    after = adoption.concept.layers[layer].energy(grams[layer]) / before.layers[layer].energy(grams[layer])
    assert adoption.energy_kept[layer] == pytest.approx(after, rel=1e-4)
    assert adoption.concept.inputs is not None  # so that merges need no model


def test_a_slot_has_its_rows_alone(base):
    adoption = quiet(base, foreign(base), slot=3)
    manifest = adoption.concept.manifest
    assert (manifest.slot, manifest.basis_id, manifest.method) == (3, BASIS_ID, foreign(base).manifest.method)
    assert manifest.adapter == {"method": "orthogonal", "basis": "slot", "rank": "proportional", "slots": 16}
    for change in adoption.concept.layers.values():
        assert torch.equal(change.down, shared_basis_rows(24, range(3, 4)))  # 24 inputs, 16 slots: one row each
    with pytest.raises(CapacityError, match="slot is 24; at width 24"):
        quiet(base, foreign(base), slot=24)


def test_what_erasure_cannot_solve_for_is_kept_or_left_out(base, caplog):
    extra = wide(base, others=(CONVOLUTION, NORM, BIAS)).layers
    others = {layer: extra[layer] for layer in (CONVOLUTION, NORM, BIAS)}
    plain = foreign(base)
    concept = replace(plain, layers={**plain.layers, **others})
    whole = quiet(base, concept)
    assert whole.unsolved == (CONVOLUTION, NORM, BIAS) and whole.are_kept
    sizes = {layer: float(change.delta().square().sum()) for layer, change in concept.layers.items()}
    share = sum(sizes[layer] for layer in others) / sum(sizes.values())
    assert whole.unsolved_share == pytest.approx(share, rel=1e-5) and 0 < share < 1
    assert len(whole.energy_kept) == len(whole.energy_elsewhere) == len(plain.layers)
    assert torch.equal(whole.concept.layers[BIAS].up, concept.layers[BIAS].up)
    without = quiet(base, concept, unsolved="leave-out")
    assert without.unsolved == (CONVOLUTION, NORM, BIAS) and not without.are_kept
    assert set(without.concept.layers) == set(plain.layers)
    with caplog.at_level(logging.WARNING):
        with_erasure(base, concept, OPTIONS, foreign_prompts=FOREIGN)
    assert (
        f"anna: erasure cannot solve for 3 of {len(concept.layers)} layers, which stay as they are: convolutions with "
        f"a window, norms and biases, such as {CONVOLUTION}" in caplog.messages
    )
    assert without.unsolved_share == whole.unsolved_share
    message = f"slot is 2, and 3 layers of concept anna cannot be brought into it, such as {CONVOLUTION}; allowed with"
    with pytest.raises(ConfigurationError, match=message):
        quiet(base, concept, slot=2)
    assert quiet(base, concept, slot=2, unsolved="leave-out").concept.manifest.slot == 2
    with pytest.raises(ConfigurationError, match="changes only layers that erasure cannot solve for, and all are left"):
        quiet(base, replace(concept, layers={BIAS: concept.layers[BIAS]}), unsolved="leave-out")


@pytest.mark.parametrize("layer", [CONVOLUTION, NORM, BIAS])
def test_what_nothing_can_be_solved_for_is_not_called_silent(base, layer):
    plain = foreign(base)
    concept = replace(plain, layers={layer: wide(base, others=(layer,)).layers[layer]})
    message = f"concept anna changes only layers that erasure cannot solve for .*, such as {layer}, so that nothing"
    for silence in (quiet, lambda *_: with_erasure(base, concept, OPTIONS, foreign_prompts=FOREIGN)):
        with pytest.raises(ConfigurationError, match=message):
            silence(base, concept)


def test_a_convolution_of_single_pixels_has_a_gram_matrix(base):
    seen = []
    module = base.pipeline.unet.down_blocks[1].resnets[0].conv_shortcut
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].double()))
    gram = gather_grams(base, [SHORTCUT], ["a cat"], num_inference_steps=1)[SHORTCUT]
    handle.remove()
    pixels = seen[0].movedim(1, -1).reshape(-1, 16)
    torch.testing.assert_close(gram, (pixels.T @ pixels / len(pixels)).float())


def test_tokens_alone_are_adopted_as_they_are(base):
    concept = make_concept(base, selection="none")
    adoption = quiet(base, concept)
    assert adoption.concept is concept and (adoption.mean_kept, adoption.mean_elsewhere) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"trigger": " "}, "concept anna has no trigger; adoption needs one"),
        ({"class_word": ""}, "concept anna has no class word; adoption needs one"),
        ({"trigger": "sks person"}, "'sks person', which lacks its token <anna>; allowed is .* '<anna> person'"),
        ({"training": {"erasure": 3.0, "erasure_form": "closed-form"}}, "has erasure already, with weight 3.0"),
    ],
)
def test_what_cannot_be_adopted_is_said(base, fields, message):
    concept = make_concept(base)
    with pytest.raises(ConfigurationError, match=message):
        quiet(base, replace(concept, manifest=replace(concept.manifest, **fields)))


def test_a_concept_without_a_trigger_has_general_prompts_and_no_erasure(base):
    concept = foreign(base, trigger="")
    assert len(own_prompts(base, concept.manifest)) == NUM_GENERAL
    assert own_prompts(base, make_manifest())[0] == "a photo of <anna> person"
    with pytest.raises(ConfigurationError, match="concept anna has no trigger, so that it acts on every prompt"):
        with_erasure(base, concept, OPTIONS)


@pytest.mark.parametrize("algorithm", [name for name, kind in ALGORITHMS.items() if kind.needs_inputs])
def test_data_aware_merges_sum_what_has_no_gram_matrix(base, algorithm):
    layers = {**foreign(base).layers, BIAS: LowRank(torch.ones(16, 1), torch.ones(1, 1))}
    first = replace(foreign(base), layers=layers)
    second = make_concept(base, "rex", selection="cross-attention-kv", seed=1)
    merged = merge_for(base, [(first, 0.5), (second, 1.0)], algorithm=algorithm)
    assert merged.layers[BIAS].delta().flatten().tolist() == [0.5] * 16 and merged.recipe.inputs is not None
    inputs = gather_inputs(base, [first, second], with_foreign=False)
    assert inputs.summed == {BIAS} and inputs.only([first.content_hash]).summed == {BIAS}
    alone = merge_for(base, [(replace(first, layers={BIAS: layers[BIAS]}), 0.5)], algorithm=algorithm)
    assert alone.layers[BIAS].delta().flatten().tolist() == [0.5] * 16
