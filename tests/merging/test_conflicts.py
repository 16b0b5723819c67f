"""Conflicts of files whose answer is written out: overlaps, sizes, clashes, verdicts and cures."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.concepts import BaseIdentity, Concept
from orthoplex.concepts.exchange import LoraFile
from orthoplex.errors import ConfigurationError
from orthoplex.merging import InputGrams, conflicts
from orthoplex.merging.conflict_identity import trigger_words
from orthoplex.merging.conflict_verdict import LIMITS, level_of
from tests.pico import PICO_IDENTITY, make_manifest, tokens_of

LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


def unit(row, column, size=1.0, shape=(3, 4)):
    """A change that writes one output and reads one input."""
    up, down = torch.zeros(shape[0], 1), torch.zeros(1, shape[1])
    up[row, 0], down[0, column] = size, 1.0
    return LowRank(up, down)


def lora(name, change=None, *, layer=LAYER, **fields):
    layers = {} if change is None else {layer: change}
    defaults = {"style": "kohya", "family": "stable_diffusion", "version": "sd1", "layers": layers}
    return LoraFile(name=name, **{**defaults, **fields})


def concept(name, change, *, base=PICO_IDENTITY, token=None, inputs=None, path=None):
    tokens = tokens_of({token or f"<{name}>": torch.ones(4)})
    return Concept(make_manifest(name, base=base), {LAYER: change}, tokens, inputs, path)


def clash_of(first, second):
    (clash,) = conflicts([(first, 1.0), (second, 1.0)]).clashes
    return clash


@pytest.mark.parametrize(
    ("first", "second", "inputs", "outputs", "cosine"),
    [
        (unit(0, 0), unit(1, 1), 0.0, 0.0, 0.0),
        (unit(0, 0), unit(1, 0), 1.0, 0.0, 0.0),
        (unit(0, 0), unit(0, 1), 0.0, 1.0, 0.0),
        (unit(0, 0), unit(0, 0, -3.0), 1.0, 1.0, -1.0),
    ],
    ids=["nothing shared", "inputs shared", "outputs shared", "opposites"],
)
def test_overlaps_of_a_pair(first, second, inputs, outputs, cosine):
    (pair,) = conflicts([(lora("a", first), 1.0), (lora("b", second), 1.0)]).pairs
    assert (pair.input_overlap, pair.output_overlap, pair.cosine) == pytest.approx((inputs, outputs, cosine))
    assert pair.layers[0].layer == LAYER and pair.layers[0].share == pytest.approx(1.0)


def test_a_direction_counts_by_its_energy():
    change = LowRank(torch.diag(torch.tensor([1.0, 10.0, 0.0])), torch.eye(3, 4))
    pairs = conflicts([(lora("a", unit(2, 0)), 1.0), (lora("b", change), 1.0), (lora("c", unit(2, 1)), 1.0)]).pairs
    of = {(pair.first, pair.second): pair.input_overlap for pair in pairs}
    assert of["a", "b"] == pytest.approx((1 + 10**4) ** -0.25, rel=1e-3)
    assert of["b", "c"] == pytest.approx(1.0, rel=1e-3)


def test_a_layer_that_one_file_alone_changes_is_no_overlap():
    both = LoraFile(
        "b", "kohya", "stable_diffusion", "sd1", {LAYER: unit(0, 0), "unet.other": unit(0, 0, math.sqrt(3))}
    )
    report = conflicts([(lora("a", unit(0, 0)), 1.0), (both, 1.0)])
    assert report.pairs[0].input_overlap == report.pairs[0].cosine == pytest.approx(0.5)
    apart = conflicts([(lora("a", unit(0, 0)), 1.0), (lora("c", unit(0, 0), layer="unet.x"), 1.0)])
    assert apart.pairs[0].sign_conflict is None and "1 pair of files changes no layer in common" in apart.notes


def test_sizes_count_strengths():
    report = conflicts(
        [(lora("a", unit(0, 0, 3.0)), 1.0), (lora("b", unit(1, 0, 2.0)), -2.0)], weight_norms={LAYER: 10.0}
    )
    assert [file.norm for file in report.files] == pytest.approx([3.0, 4.0])
    assert [file.of_base for file in report.files] == pytest.approx([0.3, 0.4])
    budget = report.budget
    assert (budget.together, budget.apart, budget.largest, budget.of_base) == pytest.approx((5.0, 5.0, 4.0, 0.5))
    assert budget.layer == LAYER
    (pair,) = report.pairs
    assert (pair.first_disturbed, pair.second_disturbed) == pytest.approx((4 / 3, 3 / 4))
    assert (
        conflicts([(lora("a", unit(0, 0)), 1.0), (lora("b", unit(1, 0)), 1.0)], weight_norms={}).budget.of_base is None
    )


def test_crosstalk_is_the_effect_on_inputs_that_a_concept_stores():
    loud, quiet = concept("anna", unit(0, 0), inputs=torch.eye(4)[:1].half()), concept("rex", unit(1, 0, 0.5))
    (pair,) = conflicts([(loud, 1.0), (quiet, 1.0)]).pairs
    assert pair.first_crosstalk == pytest.approx(0.5) and pair.second_crosstalk is None
    seen = InputGrams({quiet.content_hash: {LAYER: torch.eye(4)}})
    (pair,) = conflicts([(loud, 1.0), (quiet, 1.0)], inputs=seen).pairs
    assert pair.first_crosstalk is None and pair.second_crosstalk == pytest.approx(2.0)


def test_full_differences_norms_and_biases_are_compared():
    parameters = {"unet.norm.weight": torch.tensor([1.0, 0.0]), "unet.x.bias": torch.tensor([3.0, 4.0])}
    other = {"unet.norm.weight": torch.tensor([0.0, 1.0]), "unet.x.bias": torch.tensor([3.0, 4.0])}
    report = conflicts([(lora("a", differences=parameters), 1.0), (lora("b", differences=other), 1.0)])
    cosines = {layer.layer: layer.cosine for layer in report.pairs[0].layers}
    assert cosines == pytest.approx({"unet.norm": 0.0, "unet.x.bias": 1.0})


def test_a_verdict_is_of_the_mean_disturbance_and_names_the_worst_pair():
    members = [(lora(name, unit(i % 3, 0)), 1.0) for i, name in enumerate("abc")]
    report = conflicts([*members, (lora("d", unit(0, 1)), 1.0)])
    assert [file.overlap for file in report.files] == pytest.approx([2.0, 2.0, 2.0, 0.0])
    assert [file.disturbance for file in report.files] == pytest.approx([2**0.5] * 3 + [0.0])
    assert [file.level for file in report.files] == ["strong", "strong", "strong", "none"]
    assert report.quantity == "disturbance" and report.score == pytest.approx(2**0.5 * 3 / 4)
    assert report.level == "strong" and report.worst is not None
    assert {report.worst.first, report.worst.second} <= set("abc") and report.worst.level == "strong"
    assert report.cures == (
        "merge by the algorithm ties instead of a sum",
        "merge fewer at once: without a, b the other 2 hardly conflict",
    )
    assert conflicts([(lora("a", unit(0, 0)), 1.0), (lora("d", unit(0, 1)), 1.0)]).level == "none"
    assert len(conflicts(members).cures) == 1  # any two of them conflict


@pytest.mark.parametrize("quantity", LIMITS)
def test_levels_begin_at_their_limits(quantity):
    mild, strong = LIMITS[quantity]
    assert [level_of(x, quantity) for x in (0.0, mild, strong)] == ["none", "mild", "strong"]


def test_crosstalk_decides_where_it_is_known_of_all():
    rows = torch.eye(4)[:1].half()
    parts = [concept(name, unit(i, 0), inputs=rows * (i + 1)) for i, name in enumerate(("anna", "bea", "cleo"))]
    report = conflicts([(part, 1.0) for part in parts])
    assert report.quantity == "crosstalk" and report.score == pytest.approx(2.0)
    assert [file.crosstalk for file in report.files] == pytest.approx([2.0] * 3) and report.level == "strong"
    assert report.cures[-1].startswith("merge fewer at once: without anna the other 2")
    report = conflicts([*((part, 1.0) for part in parts), (concept("rex", unit(0, 1)), 1.0)])
    assert report.quantity == "disturbance" and report.files[3].crosstalk is None


def test_concepts_get_commands_that_can_be_run():
    first, second = (concept(n, unit(i, 0), path=Path(f"{n} x.safetensors")) for i, n in enumerate(("anna", "rex")))
    cures = conflicts([(first, 1.0), (second, 0.5)]).cures
    assert cures[0] == (
        "orthoplex merge 'anna x.safetensors' 'rex x.safetensors'@0.5 --base pico --output merged, which chooses least "
        "squares"
    )
    erasing = (
        "erase each where it is not named: orthoplex silence 'anna x.safetensors' --output anna-silent.safetensors"
    )
    assert f"{erasing}, and so for rex" in cures
    assert conflicts([(first, 1.0), (lora("style", unit(2, 0)), 1.0)]).cures[-1] == erasing


@pytest.mark.parametrize(
    ("first", "second", "kind", "level", "message"),
    [
        ({"version": "sd2"}, {}, "base", "strong", "one is for sd2 and the other for sd1"),
        (
            {"family": "flux", "version": None},
            {},
            "base",
            "strong",
            "one is for flux and the other for stable_diffusion",
        ),
        (
            {"metadata": {"ss_base_model_version": "sd_v1"}},
            {"metadata": {"ss_base_model_version": "sd_v1_v"}},
            "base",
            "strong",
            "ss_base_model_version is sd_v1 and sd_v1_v",
        ),
        (
            {"metadata": {"ss_sd_model_hash": "abc", "ss_sd_model_name": "D:\\m\\one.safetensors"}},
            {"metadata": {"ss_sd_model_hash": "def"}},
            "base",
            "mild",
            "one.safetensors and def",
        ),
        (
            {"embeddings": {"<x>": {"text_encoder": torch.ones(1, 2)}}},
            {"embeddings": {"<x>": {"text_encoder": torch.zeros(1, 2)}}},
            "token",
            "strong",
            "<x> is a token of both, with different vectors",
        ),
        (
            {"metadata": {"modelspec.trigger_phrase": "Sks  woman, smile"}},
            {"metadata": {"ss_dataset_dirs": '{"10_sks man": {"n_repeats": 10}}'}},
            "trigger",
            "strong",
            "both are called by sks (sks woman; sks man)",
        ),
        (
            {"metadata": {"modelspec.trigger_phrase": "woman"}},
            {"metadata": {"ss_tag_frequency": '{"5_woman": {"smile": 3}}'}},
            "trigger",
            "mild",
            "both are called by woman",
        ),
    ],
    ids=["version", "family", "base version", "checkpoint", "token", "trigger", "class word"],
)
def test_clashes(first, second, kind, level, message):
    clash = clash_of(lora("a", unit(0, 0), **first), lora("b", unit(0, 1), **second))
    assert (clash.kind, clash.level, clash.first, clash.second) == (kind, level, "a", "b")
    assert message in clash.message and clash.cure


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (
            {"modelspec.architecture": "stable-diffusion-v1/lora"},
            {"modelspec.architecture": "Stable-Diffusion-v1/lokr"},
        ),
        ({"ss_sd_model_hash": "abc"}, {"ss_new_sd_model_hash": "def"}),
        ({"ss_sd_model_hash": "None"}, {"ss_sd_model_hash": "abc"}),
        ({"modelspec.trigger_phrase": "a cat"}, {"modelspec.trigger_phrase": "a dog"}),
        ({"ss_dataset_dirs": "no JSON"}, {"ss_dataset_dirs": '["10_x"]', "ss_tag_frequency": '{"img": {}}'}),
    ],
    ids=["adapters differ", "other hash", "no hash", "articles", "no folders"],
)
def test_what_is_no_clash(first, second):
    files = [(lora("a", unit(0, 0), metadata=first), 1.0), (lora("b", unit(0, 1), metadata=second), 1.0)]
    assert not conflicts(files).clashes


def test_trigger_words_are_read_from_every_place_once():
    header = {"modelspec.trigger_phrase": "Ohwx man,, x", "ss_tag_frequency": '{"/d/3_ohwx man": {}, "img": {}}'}
    assert trigger_words(header) == ("ohwx man", "x")


def test_concepts_of_one_token_or_of_two_bases():
    first = concept("anna", unit(0, 0))
    clash = clash_of(first, concept("rex", unit(0, 1), token="<anna>"))
    assert clash.kind == "token" and "with the same vectors" in clash.message
    assert "orthoplex rename rex anna-2 --output anna-2.safetensors" in clash.cure
    clash = clash_of(first, concept("rex", unit(0, 1), base=BaseIdentity("sd1", "1" * 64, "tuned")))
    assert clash.kind == "base" and "'pico' (000000000000) and 'tuned' (111111111111)" in clash.message


def test_layers_besides_keys_and_values_need_pictures_for_least_squares():
    layers = {LAYER.replace("to_k", "to_q"): unit(0, 0)}
    files = [replace(concept(name, unit(0, 0)), layers=layers) for name in ("anna", "rex")]
    assert "anna rex --algorithm least-squares --base pico" in conflicts([(file, 1.0) for file in files]).cures[1]


def test_a_copy_and_another_shape_are_told():
    clash = clash_of(lora("a", unit(0, 0)), lora("b", unit(0, 0, 2.0)))
    assert clash.kind == "copy" and clash.level == "strong" and "give only one of a and b" in clash.cure
    report = conflicts([(lora("a", unit(0, 0)), 1.0), (lora("b", unit(0, 0, shape=(3, 5))), 1.0)])
    assert report.clashes[0].kind == "shape" and f"{LAYER} is (3, 4) and (3, 5)" in report.clashes[0].message


def test_names_are_told_apart():
    path = Path("other/a.safetensors")
    files = [lora("a", unit(0, 0)), lora("a", unit(0, 1)), lora("a", unit(1, 2), path=path), lora("b", unit(2, 3))]
    report = conflicts([(file, 1.0) for file in files])
    assert [file.name for file in report.files] == ["a (1)", "a (2)", str(path), "b"]


def test_notes_name_what_was_not_compared():
    still = LowRank(torch.zeros(3, 1), torch.ones(1, 4))
    partly = lora("b", unit(0, 1), left_out={"x.weird": "no payload has it"})
    report = conflicts([(lora("a", still), 1.0), (partly, 1.0), (lora("c", unit(0, 0)), 0)])
    assert len(report.files) == 2
    for text in (
        "c has strength 0",
        "a changes no weight",
        "b: 1 keys were not read, such as x.weird: no payload has it",
    ):
        assert any(text in note for note in report.notes)


def test_json_lists_ten_layers_or_all():
    layers = {f"unet.l{i}": unit(0, 0) for i in range(12)}
    files = [(LoraFile(n, "kohya", None, None, layers), s) for n, s in (("a", 1.0), ("b", 0.5))]
    report = conflicts(files)
    values = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert len(values["pairs"][0]["layers"]) == 10 and values["level"] == report.level
    assert len(report.to_json(every_layer=True)["pairs"][0]["layers"]) == 12
    assert conflicts([(replace(f, name=f.name), s) for f, s in files]) == report


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "conflicts of 0 files were asked for; allowed are 2 or more"),
        ([(lora("a", unit(0, 0)), 1.0)], "conflicts of 1 files"),
        ([lora("a"), lora("b")], "conflicts of LoraFile were asked for; allowed are pairs"),
        ([(lora("a", unit(0, 0)), math.inf), (lora("b"), 1.0)], "a: strength is inf"),
        ([(lora("a", unit(0, 0, math.nan)), 1.0), (lora("b"), 1.0)], "the changes of a have the energy nan"),
    ],
)
def test_errors(files, message):
    with pytest.raises(ConfigurationError, match=message):
        conflicts(files)
