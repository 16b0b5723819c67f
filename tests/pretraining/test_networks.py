"""The autoencoder's encoder is patch PCA, and the denoiser's loop resumes and averages as it says."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pretraining import tokenizer
from pretraining.autoencoder import LATENTS, build, fit_pca
from pretraining.denoiser import DenoiserConfig, schedule, scheduler, train
from pretraining.export import loss_curve
from pretraining.muon import Muon, Shared, layout, named, orthogonalised


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (24, 9, 9, 3)).astype(np.float32)
    return np.kron(coarse, np.ones((1, 15, 15, 1)))[:, :128, :128].astype(np.uint8)


def test_the_stock_encoder_computes_patch_pca(pictures: np.ndarray) -> None:
    pca = fit_pca(pictures)
    x = torch.from_numpy(pictures[:2]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        posterior = build(pca).encode(x).latent_dist
    torch.testing.assert_close(posterior.mean, pca.encode(x), atol=0.02, rtol=2e-3)
    assert posterior.std.max() < 1e-5


def test_latents_have_one_scale_and_components_are_orthogonal(pictures: np.ndarray) -> None:
    pca = fit_pca(pictures, balance=0.5)
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = pca.encode(x)
    assert latents.var((0, 2, 3)).mean() == pytest.approx(1.0, abs=0.05)
    rows = torch.nn.functional.normalize(pca.components.reshape(LATENTS, -1), dim=1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(LATENTS), atol=1e-4, rtol=0)


def test_the_rate_rises_stays_and_falls() -> None:
    config = DenoiserConfig(samples=1000, warmup_samples=100, decay_share=0.5)
    assert schedule(config, 49) == pytest.approx(0.5)
    assert schedule(config, 400) == pytest.approx(1.0)
    assert schedule(config, 750) == pytest.approx(0.51)
    assert schedule(config, 1000) == pytest.approx(0.02)


def test_the_last_timestep_holds_no_signal() -> None:
    assert scheduler().alphas_cumprod[-1] == 0


def test_orthogonalising_keeps_singular_vectors_and_evens_singular_values() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(24, 40, generator=generator)
    for given in (matrix, matrix.T):
        found = orthogonalised(given).float()
        values = torch.linalg.svdvals(found)
        assert 0.6 < values.min()
        assert values.max() < 1.3
        u, _, v = torch.linalg.svd(given, full_matrices=False)
        assert (found - u @ v).norm() < 0.3 * (u @ v).norm()


def small_network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Conv2d(8, 4, 3), torch.nn.Linear(4, 8, bias=False))


def test_every_parameter_has_one_owner_and_keeps_its_name() -> None:
    network = small_network()
    slices = layout(network, 2)
    assert {part.owner for part in slices} == {0, 1}
    assert [part.start for part in slices[1:]] == [part.stop for part in slices[:-1]]
    weights = Shared(network).weights
    for name, value in named(network, weights).items():
        torch.testing.assert_close(value, dict(network.named_parameters())[name])


def test_two_processes_step_as_one_with_the_mean_gradient() -> None:
    def run(gradients: list[float]) -> torch.Tensor:
        networks = [small_network().bfloat16() for _ in gradients]
        shared = Shared(small_network(), len(gradients))
        optimizers = [Muon(network, shared, rank) for rank, network in enumerate(networks)]
        for network, gradient in zip(networks, gradients, strict=True):
            for index, parameter in enumerate(network.parameters()):
                torch.manual_seed(index)
                parameter.grad = gradient * torch.randn(parameter.shape).bfloat16()
        for optimizer in optimizers:
            optimizer.gather()
        for optimizer in optimizers:
            optimizer.update(rate=0.1, adam_rate=0.01, step=1, decay=0.5)
        return shared.weights

    start = Shared(small_network()).weights
    together, alone = run([1.0, 3.0]), run([2.0])
    torch.testing.assert_close(together, alone, atol=5e-3, rtol=0)
    assert (alone - start).abs().min() > 0


def test_a_resumed_training_equals_an_unbroken_one(tmp_path: Path) -> None:
    latents, ids = torch.randn(6, LATENTS, 16, 16), torch.randint(0, 50, (6, 2, 8))
    short = DenoiserConfig(samples=4, batch_size=2, warmup_samples=1, decay_share=1e-9)
    whole = DenoiserConfig(samples=8, batch_size=2, warmup_samples=1, decay_share=1e-9)
    list(train(short, latents, ids, tmp_path / "a.pt", "cpu", compiled=False))
    list(train(whole, latents, ids, tmp_path / "a.pt", "cpu", compiled=False))
    list(train(whole, latents, ids, tmp_path / "b.pt", "cpu", compiled=False))
    resumed, unbroken = (torch.load(tmp_path / name, weights_only=True) for name in ("a.pt", "b.pt"))
    assert resumed["samples"] == unbroken["samples"] == 8
    for name in ("weights", "average", "first", "second"):
        torch.testing.assert_close(resumed[name], unbroken[name], rtol=0, atol=0)


def test_only_merges_that_a_word_needs_are_kept() -> None:
    table = [("a", "t</w>"), ("c", "at</w>"), ("d", "o"), ("do", "g</w>")]
    assert tokenizer.merges_needed(table, ["cat"]) == [("a", "t</w>"), ("c", "at</w>")]
    assert tokenizer.merges_needed(table, ["do"]) == []
    assert len(set(tokenizer.byte_alphabet())) == 256


def test_the_loss_curve_shows_what_a_resumed_run_did_again_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr("matplotlib.axes.Axes.plot", lambda axes, x, y, **_: drawn.append((x, y)))
    lines = [{"samples": 1, "loss": 3.0}, {"samples": 2, "loss": 9.0}, {"samples": 2, "loss": 2.0}]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    loss_curve(tmp_path / "log.jsonl", tmp_path / "curve.svg")
    assert drawn == [([1, 2], [3.0, 2.0])]
    assert (tmp_path / "curve.svg").is_file()
