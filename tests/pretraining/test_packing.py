"""A run goes on from a few megabytes alone: where it was, on its schedule, with its weights as they ship."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pretraining.autoencoder import PatchPca, fit_pca
from pretraining.denoiser import DenoiserConfig, Progress, Rhythm, schedule, train
from pretraining.muon import named
from pretraining.packing import LOG, RUN, WEIGHTS, log_until, pack, unpack
from pretraining.rounding import rounded
from tests.pretraining.tiny import TinySamples, small_denoiser

CONFIG = DenoiserConfig(samples=40, batch_size=4, warmup_samples=8, restart_samples=12)


@pytest.fixture(scope="module")
def pca() -> PatchPca:
    return fit_pca(np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), dtype=np.uint8))


def run(work: Path, pca: PatchPca, config: DenoiserConfig = CONFIG, stop: int | None = None) -> list[Progress]:
    """Train under `work`, as the command does, to the end or until a number of samples is in the checkpoint."""
    data, lines = TinySamples(latent_space=pca.key), []
    rhythm = Rhythm(log=1, save=1)
    for line in train(config, data, small_denoiser(), work / "denoiser.pt", "cpu", compiled=False, rhythm=rhythm):
        if stop is not None and line.samples > stop:
            break
        lines.append(line)
        with (work / LOG).open("a") as file:
            file.write(json.dumps(asdict(line)) + "\n")
    return lines


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory, pca: PatchPca) -> Path:
    """Folders `work` and `packed` of a run of 40 samples that was packed at 20."""
    folder = tmp_path_factory.mktemp("run")
    work = folder / "work"
    work.mkdir()
    (work / "denoiser.json").write_text('{"initial": {"folder": "base", "hash": "1"}}')
    pca.save(work)
    run(work, pca, stop=20)
    assert pack(work, small_denoiser(), folder / "packed") == (folder / "packed" / WEIGHTS).stat().st_size
    return folder


@pytest.fixture
def packed(once: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    for name in ("work", "packed"):
        shutil.copytree(once / name, tmp_path / name)
    return tmp_path / "packed"


def test_a_run_goes_on_from_its_packed_files_alone(packed: Path, tmp_path: Path, pca: PatchPca) -> None:
    fresh = tmp_path / "fresh"
    assert unpack(packed, small_denoiser(), CONFIG, fresh) == 20
    assert PatchPca.load(fresh).key == pca.key
    assert json.loads((fresh / "denoiser.json").read_text())["initial"] == {"folder": "base", "hash": "1"}
    kept = torch.load(fresh / "denoiser.pt", weights_only=True)
    assert kept["first"].count_nonzero() == kept["second"].count_nonzero() == 0
    before = torch.load(tmp_path / "work" / "denoiser.pt", weights_only=True)
    model = small_denoiser()
    weights, average = named(model, kept["weights"]), named(model, kept["average"])
    for name, value in named(model, before["average"]).items():
        wanted = rounded(value, value.shape, CONFIG.rounding_steps).half().float()
        assert torch.equal(weights[name], wanted) and torch.equal(average[name], wanted), name
    lines = run(fresh, pca)
    assert [line.samples for line in lines] == [24, 28, 32, 36, 40]
    assert [json.loads(line)["samples"] for line in (fresh / LOG).read_text().splitlines()] == list(range(4, 44, 4))
    rates = [CONFIG.learning_rate * schedule(CONFIG, seen, 20) for seen in range(20, 40, 4)]
    assert [line.learning_rate for line in lines] == pytest.approx(rates)
    assert torch.load(fresh / "denoiser.pt", weights_only=True)["restarted"] == 20


def test_the_first_step_after_a_restart_is_no_larger_than_others(packed: Path, tmp_path: Path, pca: PatchPca) -> None:
    """Empty second moments are divided by as many steps as they have seen, not by all of the run's."""
    config = replace(CONFIG, restart_samples=1)  # at the full rate at once
    run_file = packed / RUN
    told = json.loads(run_file.read_text())
    run_file.write_text(json.dumps({**told, "config": asdict(config)}))
    unpack(packed, small_denoiser(), config, tmp_path / "fresh")
    begun = torch.load(tmp_path / "fresh" / "denoiser.pt", weights_only=True)["weights"]
    run(tmp_path / "fresh", pca, config, stop=24)
    moved = torch.load(tmp_path / "fresh" / "denoiser.pt", weights_only=True)["weights"] - begun
    biases = [value for name, value in named(small_denoiser(), moved).items() if name.endswith(".bias")]
    assert torch.cat(biases).abs().max() <= 1.01 * config.adam_learning_rate


def test_a_packed_run_keeps_its_settings(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"samples is 80; allowed is 40, with which .*run.json began; --other-total"):
        unpack(packed, small_denoiser(), replace(CONFIG, samples=80), tmp_path / "fresh")
    with pytest.raises(ValueError, match=r"painted_share is 0.5; allowed is 0.12"):
        unpack(packed, small_denoiser(), replace(CONFIG, painted_share=0.5), tmp_path / "fresh", other_total=True)
    assert not (tmp_path / "fresh" / "denoiser.pt").exists()
    assert unpack(packed, small_denoiser(), replace(CONFIG, samples=80), tmp_path / "fresh", other_total=True) == 20


def test_files_that_do_not_belong_together_are_refused(packed: Path, tmp_path: Path) -> None:
    (packed / WEIGHTS).write_bytes(b"half")
    with pytest.raises(ValueError, match=r"weights.safetensors.bz2 has the hash \w+; allowed is \w+, which run.json"):
        unpack(packed, small_denoiser(), CONFIG, tmp_path / "fresh")


def test_what_takes_too_much_room_or_is_of_another_latent_space_is_not_packed(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pretraining.packing.MOST_BYTES", 1000)
    with pytest.raises(ValueError, match=r"the packed weights take \d+ bytes; allowed are at most 1000"):
        pack(tmp_path / "work", small_denoiser(), tmp_path / "again")
    fit_pca(np.random.default_rng(1).integers(0, 255, (8, 32, 32, 3), dtype=np.uint8)).save(tmp_path / "work")
    with pytest.raises(ValueError, match=r"the checkpoint's latent space is \w+; allowed is \w+"):
        pack(tmp_path / "work", small_denoiser(), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_log_that_is_missing_is_empty(tmp_path: Path) -> None:
    assert log_until(tmp_path / LOG, 10) == ""
