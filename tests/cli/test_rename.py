import pytest

from orthoplex.concepts import load_concept, read_manifest
from orthoplex.models import load_base


def test_writes_a_concept_of_another_name(run, concepts, pico_folder, tmp_path):
    output = tmp_path / "eva.safetensors"
    result = run("rename", concepts["anna"].with_suffix(""), "eva", "--output", output)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{output}: <anna> person is now <eva> person\n"
    before, after = load_concept(concepts["anna"]), load_concept(output, base=load_base(pico_folder).identity)
    assert (after.manifest.slot, after.manifest.thumbnail) == (before.manifest.slot, before.manifest.thumbnail)
    shown = run("inspect", output)
    assert "<eva>_1" in shown.stdout and "holds a small generated picture" in shown.stdout


@pytest.mark.parametrize(
    ("name", "output", "message"),
    [
        ("anna", "x.safetensors", "has the name 'anna' already"),
        ("An na", "x.safetensors", "concept name 'An na' is not allowed"),
        ("eva", "x.png", "a concept file is named '*.safetensors'"),
        ("eva", "there.safetensors", "exists; give another name, or --overwrite"),
    ],
)
def test_errors_are_one_line(run, concepts, tmp_path, name, output, message):
    (tmp_path / "there.safetensors").write_text("mine")
    result = run("rename", concepts["anna"], name, "--output", tmp_path / output)
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1
    assert (tmp_path / "there.safetensors").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_a_strength_is_refused(run, concepts, tmp_path):
    result = run("rename", f"{concepts['anna']}@0.5", "eva", "--output", tmp_path / "x.safetensors")
    assert result.exit_code == 2 and "allowed is the file without a strength" in result.stderr


def test_a_file_may_be_replaced_by_itself(run, concepts, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(concepts["anna"].read_bytes())
    assert run("rename", path, "eva", "--output", path, "--overwrite").exit_code == 0
    assert read_manifest(path).name == "eva"
