"""Concepts on relatives of their base, and how far two bases are apart."""

import copy
from dataclasses import replace

import pytest
import torch

from orthoplex import vignette
from orthoplex.activations import merge_for, merge_to_folder
from orthoplex.concepts import load_concept, save_concept
from orthoplex.errors import BaseModelError
from orthoplex.models import WeightSample, load_base, on_base
from orthoplex.models.identity import weights_hash
from orthoplex.models.relatives import BASE_SAMPLE_KEY
from tests.pico import build_unet, make_concept


def moved(base, noise, *, seed=1):
    """A copy whose every weight is moved by noise of a share of its tensor's spread."""
    other, generator = copy.deepcopy(base), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in other.family.components().values():
            for values in module.parameters():
                if values.ndim > 1:
                    values += noise * values.std() * torch.randn(values.shape, generator=generator)
    other.identity = replace(other.identity, hash=weights_hash(other.family.components()), name="relative")
    return other


@pytest.mark.parametrize("noise", [1e-3, 1e-2, 1e-1])
def test_the_distance_is_the_noise_in_units_of_the_spread(pico, noise):
    sample = WeightSample.decode(WeightSample.of(pico.family.components()).encode())
    assert sample.distance(moved(pico, noise).family.components()) == pytest.approx(noise, rel=0.1)
    assert sample.distance(pico.family.components()) < 3e-4  # the file's float16


def test_unrelated_weights_are_far_and_other_shapes_are_not_compared(pico, pico_folder):
    sample = WeightSample.of(pico.family.components())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        unrelated = {**pico.family.components(), "unet": build_unet()}
    assert sample.distance(unrelated) > 0.8
    assert sample.distance({"unet": unrelated["unet"]}) is None


def test_it_samples_what_its_formula_says():
    linear, conv = torch.nn.Linear(3, 2), torch.nn.Conv2d(1, 2, 2)
    sample = WeightSample.of({"b": linear, "a": conv.to(memory_format=torch.channels_last)})
    torch.testing.assert_close(sample.values, torch.cat([conv.weight.flatten(), linear.weight.flatten()]).detach())


def test_a_concept_works_on_a_relative_and_the_distance_is_logged(pico, caplog):
    concept = make_concept(pico)
    manifest = concept.manifest
    sample = WeightSample.of(pico.family.components()).encode()
    concept = replace(concept, manifest=replace(manifest, training={BASE_SAMPLE_KEY: sample}))
    relative = moved(pico, 0.01)
    adopted = on_base(concept, relative)
    assert "concept anna was trained on base 'pipeline'" in caplog.text and "is used on 'relative'" in caplog.text
    assert "weights differ by 0.01 of their spread" in caplog.text
    assert adopted.manifest.base == relative.identity
    assert adopted.manifest.training["trained_on"]["hash"] == pico.identity.hash
    assert adopted.content_hash == concept.content_hash
    before = {name: layer.linear.weight.clone() for name, layer in relative.family.layers("attention").items()}
    with relative.folded(merge_for(relative, [(adopted, 1.0)])):
        for name, change in concept.layers.items():
            weight = relative.family.layers("attention")[name].linear.weight
            torch.testing.assert_close(weight - before[name], change.delta())
    assert on_base(concept, pico) is concept


@pytest.mark.parametrize("training", [{}, {BASE_SAMPLE_KEY: "?"}, {BASE_SAMPLE_KEY: f"{'0' * 16}:AAA"}])
def test_an_unknown_distance_is_said(pico, caplog, training):
    concept = make_concept(pico)
    concept = replace(concept, manifest=replace(concept.manifest, training=training))
    on_base(concept, moved(pico, 0.01))
    assert "its file does not tell how far the two are: compare pictures" in caplog.text


def test_a_base_of_other_layers_is_refused(pico):
    anna = load_concept(vignette.concept_file("anna", method="orthogonal"))
    with pytest.raises(BaseModelError, match=r"anna .* was trained on base 'vignette' .* and does not fit base .* it "):
        on_base(anna, pico)


def test_an_unrelated_base_is_refused(pico, pico_folder):
    concept = make_concept(pico)
    sample = WeightSample.of(pico.family.components())
    shuffled = replace(sample, values=sample.values.flip(0))
    concept = replace(concept, manifest=replace(concept.manifest, training={BASE_SAMPLE_KEY: shuffled.encode()}))
    with pytest.raises(
        BaseModelError, match=r"differ by [\d.]+ of their spread, as those of unrelated .* less than 1.2"
    ):
        on_base(concept, moved(pico, 0.01))


def test_shipped_concepts_know_the_embedded_base(caplog):
    base = load_base("vignette")
    far = moved(base, 3.0)
    on_base(load_concept(vignette.concept_file("anna", method="orthogonal")), far)
    assert "weights differ by 0.9" in caplog.text


def test_a_merge_into_files_takes_relatives_too(pico, pico_folder, tmp_path, caplog):
    concept, folder = make_concept(pico, selection="cross-attention-kv"), tmp_path / "relative"
    save_concept(concept, tmp_path / "anna.safetensors")
    moved(pico, 0.01).save(folder)
    merged = merge_to_folder(folder, [(tmp_path / "anna.safetensors", 1.0)], tmp_path / "merged")
    assert merged.recipe.base.name == "relative" and "was trained on base" in caplog.text
    layer = next(iter(concept.layers))
    weights = [load_base(path).family.every_layer()[layer].weight for path in (folder, tmp_path / "merged")]
    torch.testing.assert_close(weights[1] - weights[0], concept.layers[layer].delta())
