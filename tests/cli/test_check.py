import json
import shutil

import pytest
from PIL import Image

from tests.cli.conftest import quick_options


@pytest.fixture
def folder(tmp_path):
    for number, size in enumerate(((40, 36), (20, 60))):
        Image.new("RGB", size, (90 * number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "0.txt").write_text("[trigger] smiling\n<anna> (at night:1.2)")
    (tmp_path / "notes.pdf").touch()
    return tmp_path


def test_a_folder_is_accounted_for(run, folder):
    result = run("check", folder)
    assert result.exit_code == 0 and result.stderr == ""
    assert result.stdout.splitlines() == [
        "2 pictures (20×60 to 40×36), captions: 1 from .txt, 1 from templates; not read: notes.pdf",
        "  0.png 40×36, .txt: [trigger] smiling | <anna> (at night:1.2)",
        "  1.png 20×60, templates",
        "Not read: notes.pdf: it is no picture, caption or table of captions",
        "Warning: captions of 0.png hold (at night:1.2), which is learned as text; captions have no "
        "weights; take brackets and numbers out",
    ]


def test_captions_are_shown_as_they_are_learned(run, folder):
    result = run("check", folder, "--name", "bob", "--class-word", "dog")
    assert "  0.png 40×36, .txt: <bob> dog smiling | <bob> dog, <anna> (at night:1.2)" in result.stdout
    assert "  1.png 20×60, templates: a photo of <bob> dog" in result.stdout
    assert "Warning: captions of 0.png hold <anna>, which is learned as text" in result.stdout


def test_a_base_says_its_resolution_and_how_much_it_reads(run, folder, pico_folder):
    (folder / "1.txt").write_text("TOKEN" + " a" * 200)
    result = run("check", folder, "--base", pico_folder)
    assert result.exit_code == 0, result.stderr
    assert "Warning: 1.png (20×60): smaller than 32×32, and enlarged; details are lost" in result.stdout
    assert "Warning: 1.png: the square in the middle leaves out more than half of the picture" in result.stdout
    assert (
        "Warning: captions of 1.png have up to 202 tokens, and the base reads 30; their ends are not seen"
        in result.stdout
    )


def test_what_is_damaged_is_named_and_all_else_listed(run, folder):
    whole = (folder / "0.png").read_bytes()
    (folder / "torn.png").write_bytes(whole[:-30])
    (folder / "empty.jpg").touch()
    result = run("check", folder)
    assert result.exit_code == 2 and "  0.png 40×36" in result.stdout and "  torn.png" not in result.stdout
    assert [line.partition(" cannot be read")[0].rpartition("/")[2] for line in result.stderr.splitlines()] == [
        "empty.jpg",
        "torn.png",
    ]


def test_json_says_the_same(run, folder):
    (folder / "empty.jpg").touch()
    result = run("check", folder, "--json")
    listing = json.loads(result.stdout)
    assert result.exit_code == 2 and listing["trains"] is False and "empty.jpg" in listing["errors"][0]
    assert listing["pictures"][0] == {
        "file": "0.png",
        "width": 40,
        "height": 36,
        "source": ".txt",
        "captions": ["[trigger] smiling", "<anna> (at night:1.2)"],
        "copies": [],
        "mask": None,
    }
    assert listing["unread"] == [{"file": "notes.pdf", "reason": "it is no picture, caption or table of captions"}]


def test_a_folder_without_pictures(run, tmp_path):
    result = run("check", tmp_path)
    assert result.exit_code == 2 and "holds no pictures; allowed are .png, .jpg" in result.stderr
    result = run("check", tmp_path / "nowhere")
    assert result.exit_code == 2 and "nowhere does not exist; allowed is a folder of pictures" in result.stderr


def test_a_name_goes_with_a_class_word(run, folder):
    result = run("check", folder, "--name", "anna")
    assert (
        result.exit_code == 2 and "one of --name and --class-word is given; allowed are both or none" in result.stderr
    )


def test_a_base_is_reported(run, pico_folder):
    result = run("check", pico_folder)
    assert result.exit_code == 0, result.stderr
    assert "unet: UNet2DConditionModel, float32" in result.stdout
    assert "inference steps: 1 to " in result.stdout and "prompts: up to 30 tokens" in result.stdout
    assert json.loads(run("check", pico_folder, "--json").stdout)["resolution"] == 32


def test_a_base_that_cannot_be_loaded_is_reported_too(run, pico_folder, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(pico_folder, folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    result = run("check", folder)
    assert result.exit_code == 2 and "vae: AutoencoderKL" in result.stdout and "problem: base" in result.stdout
    file = run("check", folder / "vae" / "diffusion_pytorch_model.safetensors")
    assert file.exit_code == 2 and "problem: base" in file.stdout


def test_options_of_pictures_are_no_options_of_a_base(run, pico_folder):
    result = run("check", pico_folder, "--base", "vignette")
    assert result.exit_code == 2 and "--base vignette is given with the base" in result.stderr


def test_what_a_training_refuses_is_an_error(run, folder, pico_folder):
    (folder / "1.txt").write_text("a " * 29 + "TOKEN")
    options = ("--name", "anna", "--class-word", "person", "--base", pico_folder)
    result = run("check", folder, *options)
    line = "caption of 1.png has 32 tokens, and <anna> stands behind the 30 that the base reads; allowed are captions"
    assert result.exit_code == 2 and f"Error: {line}" in result.stderr and line not in result.stdout
    listing = json.loads(run("check", folder, *options, "--json").stdout)
    assert listing["trains"] is False and listing["errors"][0].startswith(line)
    trained = run("train", folder, *options, "--output", folder.parent / "a.safetensors", *quick_options())
    assert trained.exit_code == 2 and line in trained.stderr
    (folder / "1.txt").write_text("a " * 28 + "TOKEN")
    assert run("check", folder, *options).exit_code == 0


@pytest.mark.parametrize("beside", ["config.json", "vae/notes.pdf", "unet/config.json", "text_encoder/a.png"])
def test_a_folder_of_pictures_is_no_base_whatever_else_is_in_it(run, folder, beside):
    (folder / beside).parent.mkdir(exist_ok=True)
    if beside.endswith(".png"):
        Image.new("RGB", (9, 9), "red").save(folder / beside)
    else:
        (folder / beside).write_text("{}")
    result = run("check", folder)
    assert result.exit_code == 0 and result.stdout.startswith(f"{3 if beside.endswith('.png') else 2} pictures")
    for path in folder.rglob("*.png"):
        path.unlink()
    assert "is no pipeline folder" in run("check", folder).stdout


def test_a_picture_is_no_base(run, folder):
    result = run("check", folder / "0.png")
    assert (
        result.exit_code == 2 and result.stderr == f"Error: {folder / '0.png'} is a picture; give its folder {folder}\n"
    )


@pytest.mark.parametrize("is_base", [False, True])
def test_a_folder_of_the_name_of_the_embedded_base_is_taken(run, folder, pico_folder, tmp_path, monkeypatch, is_base):
    place = tmp_path / "place"
    place.mkdir()
    shutil.copytree(pico_folder if is_base else folder, place / "vignette", ignore=shutil.ignore_patterns("place"))
    monkeypatch.chdir(place)
    result = run("check", "vignette")
    assert result.exit_code == 0
    assert f"vignette is taken for the folder {place / 'vignette'}; elsewhere it is the embedded" in result.stderr
    assert result.stdout.startswith(f"base {place / 'vignette'}: " if is_base else "2 pictures")


def test_captions_of_several_lines_are_shown_in_one(run, folder):
    (folder / "metadata.csv").write_text('file_name,text\n1.png,"one,\n two"\n')
    assert "  1.png 20×60, metadata.csv: one, two" in run("check", folder).stdout.splitlines()
