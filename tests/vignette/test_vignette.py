"""What ships with the package: a pipeline anyone can load, and concept files that belong to it."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open

from orthoplex import vignette
from orthoplex.activations import gather_grams
from orthoplex.concepts import load_concept, read_manifest
from orthoplex.errors import ConfigurationError
from orthoplex.generation import generate
from orthoplex.merging import crosstalk, merge
from orthoplex.models import load_base
from orthoplex.training import TrainingConfig
from tests.pico import linear_layers

NAMES = [sample.name for sample in vignette.sample_concepts()]
HERE = Path(vignette.__file__).parent


@pytest.fixture(scope="module")
def base():
    return load_base("vignette")


def test_the_base_is_small_fp16_safetensors():
    files = [path for path in vignette.folder().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40_000_000
    weights = [path for path in files if path.suffix not in (".json", ".txt")]
    assert weights
    for path in weights:
        assert path.suffix == ".safetensors"
        with safe_open(path, framework="pt") as file:
            assert {str(file.get_slice(key).get_dtype()) for key in file.keys()} <= {"F16", "I64"}  # noqa: SIM118


def test_diffusers_alone_loads_the_base_and_draws():
    pipeline = StableDiffusionPipeline.from_pretrained(vignette.folder(), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    (image,) = pipeline("a fox in a forest", num_inference_steps=2).images
    assert image.size == (128, 128)


@pytest.mark.parametrize("method", ["orthogonal", "lora"])
@pytest.mark.parametrize("name", NAMES)
def test_every_sample_concept_is_shipped_and_belongs_to_the_base(base, name, method):
    manifest = read_manifest(vignette.concept_file(name, method=method))
    sample = next(sample for sample in vignette.sample_concepts() if sample.name == name)
    assert (manifest.name, manifest.kind, manifest.class_word) == (name, sample.kind, sample.class_word)
    assert manifest.base.hash == base.identity.hash
    assert manifest.method == method


def test_shipped_files_were_trained_as_the_shipped_configurations_say():
    """An option that is younger than a file has the default in it that leaves training as it was."""
    defaults = TrainingConfig(erasure_steps=0).to_json()
    for method in ("orthogonal", "lora"):
        configured = TrainingConfig.from_toml(HERE / "training" / f"{method}.toml")
        # files tell how many there were
        config = {**configured.to_json(), "erasure_steps": configured.steps_after_erasure}
        for slot, name in enumerate(NAMES):
            trained = read_manifest(vignette.concept_file(name, method=method)).training
            expected = {**config, "slot": slot} if method == "orthogonal" else dict(config)
            assert expected.pop("mixed_precision") == "auto"  # which of both it was depends on where they were trained
            assert {key: trained.get(key, defaults[key]) for key in expected} == expected


def test_shipped_concepts_learned_in_slots_of_their_own():
    manifests = [read_manifest(vignette.concept_file(name, method="orthogonal")) for name in NAMES]
    assert [manifest.training["slot"] for manifest in manifests] == list(range(len(NAMES)))
    assert {manifest.slot for manifest in manifests} == {None}  # silence took their rows out of the slots


def test_shipped_concepts_are_silent_where_they_are_not_named(base):
    """What a concept adds to keys and values, as a share of what is there: on its own prompts, and on foreign ones."""
    concepts = [load_concept(vignette.concept_file(name, method="orthogonal")) for name in NAMES]
    layers, weights = list(concepts[0].layers), linear_layers(base, "cross-attention-kv")
    foreign = gather_grams(base, layers, ["a photo of a fox in a forest", "a person with red hair in a city street"])
    for concept in concepts:
        own = gather_grams(base, layers, [f"a photo of {concept.manifest.trigger}"], change=concept)
        heard, stray = (
            sum(crosstalk(concept.layers[layer], weights[layer].weight, grams[layer]) for layer in layers)
            for grams in (own, foreign)
        )
        assert stray < 0.4 * heard, concept.name


def test_the_merge_of_twelve_changes_the_picture_and_leaves_no_trace(base):
    twelve = merge([(load_concept(vignette.concept_file(name, method="orthogonal")), 1.0) for name in NAMES])
    settings = {"seed": 3, "num_inference_steps": 2}
    before = generate(base, "a person in a forest", **settings)[0]
    named = generate(base, f"<{NAMES[0]}> person in a forest", merge=twelve, **settings)[0]
    after = generate(base, "a person in a forest", **settings)[0]
    assert named.tobytes() != before.tobytes()
    assert after.tobytes() == before.tobytes()


def test_a_file_that_is_not_shipped_is_named():
    with pytest.raises(ConfigurationError, match="no concept file is shipped for lora/nobody; shipped: .*lora/anna"):
        vignette.concept_file("nobody", method="lora")


def test_the_heads_are_small_fp16_safetensors():
    files = [vignette.head_file(factor) for factor in ("scene", "style")]
    assert sum(path.stat().st_size for path in files) <= 300_000
    for path in files:
        with safe_open(path, framework="pt") as file:
            assert {str(file.get_slice(key).get_dtype()) for key in ("weight", "bias")} == {"F16"}


def test_a_head_that_is_not_shipped_is_named():
    with pytest.raises(ConfigurationError, match="no head is shipped for 'mood'; shipped: scene, style"):
        vignette.head_file("mood")


def test_foreign_prompts_are_many_and_different():
    prompts = vignette.foreign_prompts()
    assert len(prompts) >= 200
    assert len(set(prompts)) == len(prompts)
    assert all(prompts)
