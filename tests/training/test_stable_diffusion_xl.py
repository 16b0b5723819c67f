"""Stable Diffusion XL: trained with every kind of token, and with layers of both text encoders."""

from dataclasses import replace

import pytest

from orthoplex.concepts import load_concept
from orthoplex.models import load_base
from orthoplex.training import TrainingConfig, train
from orthoplex.training.batches import TrainingData
from orthoplex.training.run import Run
from orthoplex.training.stages import prepared_foreign
from tests.pico_xl import WIDTHS
from tests.training.conftest import write_pictures
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


@pytest.mark.parametrize("text_encoder", [False, True])
def test_it_reads_the_sizes_of_class_pictures(base, dataset, config, tmp_path, text_encoder):
    """Of given ones those that they had; those that the base made are whole."""
    config = replace(config, prior_weight=1.0, prior_pictures=3, erasure=0.0, text_encoder=text_encoder)
    given = dataset.with_class_pictures(write_pictures(tmp_path / "class", 1, size=(90, 40)))
    prior, _ = prepared_foreign(base, given, Run.of(base, given, config), ["a dog"])
    data = TrainingData.prepare(base, given, config, prior)
    seen = set()
    for step in range(6):
        batch = data.batch(config, step)
        rows = data.conditioning(base, batch).extras["sizes"].tolist()
        assert rows == [list(item.numbers) for item in batch.sizes] and rows[0] == [36, 40, 0, 2, 32, 32]
        seen |= {(number, *row) for number, row in zip(batch.foreign.tolist(), rows[batch.own :], strict=True)}
    assert seen == {(0, 40, 90, 0, 20, 32, 32), (1, 32, 32, 0, 0, 32, 32), (2, 32, 32, 0, 0, 32, 32)}


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
