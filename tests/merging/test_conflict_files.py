"""What files bring into a comparison: full differences, strengths of parts, triggers."""

from dataclasses import replace

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.merging import Strengths, conflicts
from orthoplex.merging.layer_merge import weight_changes
from tests.merging.test_conflicts import LAYER, clash_of, concept, lora, unit


def test_a_full_difference_and_factors_of_one_weight_are_compared():
    first, second = unit(0, 0), unit(0, 0, 2.0)
    full = lora("b", differences={f"{LAYER}.weight": second.delta()})
    both = lora("c", unit(1, 0), differences={f"{LAYER}.weight": torch.eye(3, 4)})
    pairs = conflicts([(lora("a", first), 1.0), (full, 1.0), (both, 1.0)]).pairs
    cosines = {(pair.first, pair.second): pair.cosine for pair in pairs}
    assert cosines == pytest.approx({("a", "b"): 1.0, ("a", "c"): 0.5, ("b", "c"): 0.5})
    assert clash_of(lora("a", first), full).kind == "copy"
    assert all(layer.layer == LAYER for pair in pairs for layer in pair.layers)


def test_a_norm_of_a_concept_is_that_of_a_file():
    norm = torch.tensor([3.0, 4.0])
    adopted = replace(concept("anna", unit(0, 0)), layers={"unet.norm": LowRank(norm[:, None], torch.ones(1, 1))})
    (pair,) = conflicts([(adopted, 1.0), (lora("b", differences={"unet.norm.weight": norm}), -1.0)]).pairs
    assert pair.cosine == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [
        (
            {"differences": {f"{LAYER}.weight": torch.ones(4, 4)}},
            {"differences": {f"{LAYER}.weight": torch.ones(4, 6)}},
            "is (4, 4) and (4, 6)",
        ),
        ({"change": unit(0, 0)}, {"differences": {f"{LAYER}.weight": torch.ones(3, 6)}}, "is (3, 4) and (3, 6)"),
        (
            {"differences": {f"{LAYER}.bias": torch.ones(2)}},
            {"differences": {f"{LAYER}.bias": torch.ones(3)}},
            "bias is (2, 1) and (3, 1)",
        ),
        (
            {"change": unit(0, 0), "windows": {LAYER: (2, 2)}},
            {"differences": {f"{LAYER}.weight": torch.ones(3, 1, 4, 1)}},
            "is (3, 1, 2, 2) and (3, 1, 4, 1)",
        ),
        (
            {"change": unit(0, 0), "windows": {LAYER: (1, 2)}},
            {"change": unit(0, 1), "windows": {LAYER: (2, 1)}},
            "is (3, 2, 1, 2) and (3, 2, 2, 1)",
        ),
    ],
    ids=["two differences", "factors and a difference", "biases", "window of a difference", "windows"],
)
def test_other_shapes_are_found_whatever_holds_them(first, second, shown):
    clash = clash_of(lora("a", **first), lora("b", **second))
    assert clash.kind == "shape" and f"1 layer has different shapes, such as {LAYER}" in clash.message
    assert shown in clash.message
    assert conflicts([(lora("a", **first), 1.0), (lora("b", **second), 1.0)]).notes == ()


def test_a_flattened_convolution_fits_its_window():
    adopted, file = concept("anna", unit(0, 0)), lora("b", unit(0, 1), windows={LAYER: (2, 2)})
    assert not [clash for clash in conflicts([(adopted, 1.0), (file, 1.0)]).clashes if clash.kind == "shape"]


TEXT = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("text", "norm"),
    [("0.5", 0.5 * 5), ("1; te=0", 3.0), ("0; te=0.5", 2.0), ("0.5; te=-1; blocks=mid_block=0", 4.0)],
)
def test_strengths_of_parts_are_those_of_the_merge(text, norm):
    layers = {LAYER: unit(0, 0, 3.0), TEXT: unit(0, 0, 4.0)}
    file, other = lora("a", layers=layers), lora("b", unit(1, 0))
    report = conflicts([(file, Strengths.read(text)), (other, 1.0)])
    assert report.files[0].norm == pytest.approx(norm) and report.files[0].strengths == Strengths.read(text).text
    ours = conflicts([(replace(concept("anna", unit(0, 0)), layers=layers), Strengths.read(text)), (other, 1.0)])
    assert ours.files[0].norm == pytest.approx(norm)


def test_blocks_that_block_weights_leave_out_are_a_note():
    zeros = Strengths.read("1; blocks=" + ",".join(["1"] * 17))
    report = conflicts(
        [(lora("a", unit(0, 0), layer="unet.down_blocks.0.downsamplers.0.conv"), zeros), (lora("b", unit(0, 0)), 1.0)]
    )
    assert report.notes[0].startswith("a: blocks IN03 get 0, because the block weights leave them out")


def test_a_bias_has_the_strength_of_its_layer():
    bias = {f"{TEXT}.bias": torch.tensor([3.0, 4.0])}
    adopted = {f"{TEXT}.bias": LowRank(torch.tensor([[3.0], [4.0]]), torch.ones(1, 1))}
    files = [lora("a", differences=bias), replace(concept("anna", unit(0, 0)), layers=adopted)]
    report = conflicts([(file, Strengths(1.0, text_encoders=0.5)) for file in files])
    assert [file.norm for file in report.files] == pytest.approx([2.5, 2.5])


def test_strength_0_is_absent_however_it_is_given():
    files = [lora(name, unit(0, i)) for i, name in enumerate("abc")]
    zeros = [0, Strengths(0.0), Strengths(0.0, text_encoders=0.0)]
    for zero in zeros:
        report = conflicts([(files[0], 1.0), (files[1], 1.0), (files[2], zero)])
        assert [file.name for file in report.files] == ["a", "b"] and "c has strength 0" in report.notes[0]
    report = conflicts([(files[0], 1.0), (files[1], Strengths.read("1; blocks=ALL=0"))])
    assert report.pairs[0].layers == () and any("b changes no weight" in note for note in report.notes)
    for strength in (0.0, lambda layer: 0.0):
        assert weight_changes(LAYER, [(files[0], strength)]) is None
        merged = weight_changes(LAYER, [(files[0], strength), (files[1], 1.0)])
        assert merged is not None and len(merged.parts) == 1


def called(name, column, trigger, *, tokens=True, class_word="person"):
    file = concept(name, unit(0, column))
    manifest = replace(file.manifest, trigger=trigger, class_word=class_word)
    return replace(file, manifest=manifest, tokens=file.tokens if tokens else {})


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        (called("anna", 0, "sks person", tokens=False), called("rex", 1, "sks person", tokens=False), "sks person"),
        (called("anna", 0, "Sks  person", tokens=False),
         lora("b", unit(0, 1), metadata={"modelspec.trigger_phrase": "smile; sks man"}), "sks (sks person; sks man)"),
        (called("anna", 0, "<anna> sks person"), called("rex", 1, "<rex> sks person"), "sks person"),
        (called("anna", 0, "<anna> person"), called("rex", 1, "<rex> person"), None),
        (called("anna", 0, "<anna> corgi", class_word="corgi"), called("rex", 1, "a <rex> corgi", class_word="corgi"),
         None),
        (called("anna", 0, "<anna> person"), called("rex", 1, "sks person", tokens=False), None),
        (called("anna", 0, "", tokens=False), called("rex", 1, "", tokens=False), None),
    ],
    ids=["adopted", "adopted and foreign", "beside tokens", "class words", "own class words", "one of each", "none"],
)  # fmt: skip
def test_triggers_of_concepts_clash(first, second, clash):
    messages = [item.message for item in conflicts([(first, 1.0), (second, 1.0)]).clashes if item.kind == "trigger"]
    assert messages == ([] if clash is None else [f"both are called by {clash}; a prompt calls both at once"])


def test_messages_do_not_depend_on_the_order_of_a_set():
    keys = ("modelspec.architecture", "ss_base_model_version", "ss_v_parameterization", "modelspec.prediction_type")
    files = [lora(name, unit(0, i), metadata=dict.fromkeys(keys, name)) for i, name in enumerate("ab")]
    assert clash_of(*files).message == "modelspec.architecture is a and b"
    reverse = [replace(file, metadata=dict(reversed(file.metadata.items()))) for file in files]
    assert clash_of(*reverse).message == "modelspec.architecture is a and b"


def test_least_squares_is_no_cure_where_parts_have_strengths():
    files = [(concept(name, unit(i, 0)), Strengths(1.0, text_encoders=0.5)) for i, name in enumerate(("anna", "rex"))]
    assert not any("least squares" in cure for cure in conflicts(files).cures)
