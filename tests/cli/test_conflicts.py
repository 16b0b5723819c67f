import json
import xml.etree.ElementTree as ElementTree

import pytest
import torch
from safetensors.torch import save_file

from orthoplex.adapters import LowRank
from orthoplex.concepts import Concept, save_concept
from orthoplex.files import read_picture
from tests.pico import make_concept, make_manifest, tokens_of

LAYERS = ("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k", "unet.up_blocks.0.x.to_v")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three concepts that read the same input, and one that reads another."""
    folder = tmp_path_factory.mktemp("conflicts")
    for i, name in enumerate(("anna", "bea", "cleo", "dora")):
        down = torch.zeros(1, 6)
        down[0, 0 if name != "dora" else 1] = 1.0
        layers = {layer: LowRank(torch.eye(4)[:, i : i + 1].clone(), down) for layer in LAYERS}
        tokens = tokens_of({f"<{name}>": torch.ones(4)})
        save_concept(Concept(make_manifest(name), layers, tokens), folder / f"{name}.safetensors")
    return folder


def test_tables_verdict_and_cures(run, files):
    result = run("conflicts", *(files / name for name in ("anna", "bea", "cleo")))
    assert result.exit_code == 3, result.stderr
    for text in (
        "Files",
        "overlap with others",
        "Pairs",
        "anna + bea",
        "Size of the sum",
        "--algorithm least-squares --base pico",
    ):
        assert text in result.stdout
    assert "Conflict of all 3: strong (disturbance 1.41; " in result.stdout


def test_files_that_do_not_meet_exit_with_0(run, files):
    result = run("conflicts", files / "anna", f"{files / 'dora'}@0.5")
    assert result.exit_code == 0 and "Conflict of all 2: none (disturbance 0.00)" in result.stdout
    assert "To do" not in result.stdout


def test_strengths_are_written_as_for_merge(run, files):
    named = [f"{files / 'anna'}@0.5;blocks=mid_block=0", f"{files / 'dora'}@1:0.25"]
    result = run("conflicts", *named, "--json")
    assert result.exit_code == 0, result.stderr
    values = json.loads(result.stdout)
    assert [file["strengths"] for file in values["files"]] == ["0.5; blocks=mid_block=0", "1; te=0.25"]
    assert [file["norm"] for file in values["files"]] == pytest.approx([0.5, 2**0.5])


def test_json_is_the_report(run, files):
    paths = [files / f"{name}.safetensors" for name in ("anna", "dora")]
    result = run("conflicts", *paths, "--json", "--every-layer")
    values = json.loads(result.stdout)
    assert values["level"] == "none" and [file["name"] for file in values["files"]] == ["anna", "dora"]
    assert {layer["layer"] for layer in values["pairs"][0]["layers"]} == set(LAYERS)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_map_is_drawn(run, files, tmp_path, suffix):
    chart = tmp_path / f"map.{suffix}"
    result = run("conflicts", files / "anna", files / "bea", "--chart", chart)
    assert result.exit_code == 3 and f"{chart} written" in result.stderr
    if suffix == "png":
        assert read_picture(chart).size[0] > 200
        assert "exists; give another name" in run("conflicts", files / "anna", files / "bea", "--chart", chart).stderr
    else:
        drawn = " ".join("".join(item.itertext()) for item in ElementTree.parse(chart).iter())
        assert "anna" in drawn and "unet.mid_block" in drawn and "1.00" in drawn


def test_with_a_base_sizes_and_crosstalk_are_measured(run, pico, pico_folder, tmp_path):
    for seed, name in enumerate(("anna", "rex")):
        save_concept(make_concept(pico, name, seed=seed), tmp_path / f"{name}.safetensors")
    result = run("conflicts", tmp_path / "anna", tmp_path / "rex", "--base", pico_folder, "--json")
    assert result.exit_code in (0, 1, 3), result.stderr
    values = json.loads(result.stdout)
    assert all(file["of_base"] > 0 for file in values["files"])
    assert values["pairs"][0]["first_crosstalk"] > 0 and values["pairs"][0]["second_crosstalk"] > 0


def test_files_of_other_programs_are_compared_with_concepts(run, files, tmp_path):
    path = tmp_path / "style.safetensors"
    key = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    save_file(
        {
            f"{key}.lora_down.weight": torch.eye(2, 768),
            f"{key}.lora_up.weight": torch.eye(1280, 2),
            f"{key}.alpha": torch.tensor(2.0),
        },
        path,
    )
    result = run("conflicts", path, files / "anna", "--json")
    assert result.exit_code == 3, result.stderr
    (clash,) = json.loads(result.stdout)["clashes"]
    assert clash["kind"] == "shape" and "(1280, 768) and (4, 6)" in clash["message"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["anna"], "conflicts of 1 files were asked for; allowed are 2 or more"),
        (["anna", "nobody"], "nobody.safetensors"),
        (["anna", "bea@0.5;blocks=nowhere=0"], "'nowhere' names no layer of stable_diffusion"),
        (["anna", "bea@1:2:3"], "strengths of "),
        (["anna", "bea", "--chart", "map.pdf"], "chart is map.pdf; allowed are names that end in .png or .svg"),
    ],
)
def test_errors_are_one_line(run, files, arguments, message):
    named = [files / text if text[0].isalpha() and text != "map.pdf" else text for text in arguments]
    result = run("conflicts", *named)
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1
