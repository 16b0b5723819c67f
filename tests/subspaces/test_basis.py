"""The shared basis: orthonormal, the same everywhere, and as spread out as a random rotation."""

import hashlib
import math

import pytest
import torch

from orthoplex.errors import ConfigurationError
from orthoplex.subspaces import BASIS_ID, shared_basis, shared_basis_rows
from orthoplex.subspaces.basis import _parts

WIDTHS = (1, 2, 3, 64, 127, 192, 320, 768)


def haar(width: int, seed: int) -> torch.Tensor:
    """Return a random rotation."""
    gaussian = torch.randn(width, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    q, r = torch.linalg.qr(gaussian)
    return q * r.diagonal().sign()


@pytest.mark.parametrize("width", WIDTHS)
def test_basis_is_orthonormal(width):
    basis = shared_basis(width).double()
    assert basis.shape == (width, width)
    assert (basis @ basis.T - torch.eye(width, dtype=torch.float64)).abs().max() < 2e-7


@pytest.mark.parametrize("width", (5, 64, 320))
def test_basis_is_a_signed_permuted_cosine_transform(width):
    frequency, place = torch.meshgrid(torch.arange(width), torch.arange(width), indexing="ij")
    plain = math.sqrt(2 / width) * torch.cos(math.pi * (2 * place + 1).double() * frequency / (2 * width))
    plain[0] = math.sqrt(1 / width)
    _, signs, permutation = _parts(width)
    assert sorted(permutation.tolist()) == list(range(width))
    assert set(signs.abs().tolist()) == {1.0}
    torch.testing.assert_close(shared_basis(width).double(), (plain * signs)[permutation], atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    ("width", "digest"),
    [
        (128, "5ce6649bfb35bd6e0653117d1c90f1a33fef698b7d2b97371dc8156037799be7"),
        (192, "7bedb7c1eb06fc6d67559333333e481321f13f9cda2978e71d43ed024d4e1a14"),
        (320, "0c569b84ddf871c593ca5d450e740feafffb3e5ec601f9402425a0440936f47d"),
        (768, "17abfcf9dd03ad622a0f25fcaa9b5ee5bcf6a6ebd8ae510257eddc66d44dbc33"),
    ],
)
def test_basis_never_changes(width, digest):
    """Concept files hold row numbers of this matrix: a changed bit would be another basis and needs another name."""
    assert BASIS_ID == "dct2-sha256-v1"
    assert hashlib.sha256(shared_basis(width).numpy().astype("<f4").tobytes()).hexdigest() == digest


@pytest.mark.parametrize("width", (64, 128, 192, 256, 320, 640, 768, 1024, 1280))
def test_no_entry_is_near_a_rounding_boundary(width):
    """A mathematics library that errs in the last bits of float64 still gives the same float32 basis."""
    cosines, _, _ = _parts(width)
    for amplitude in (math.sqrt(1 / width), math.sqrt(2 / width)):
        entries = cosines * amplitude
        for nudge in (1 - 1e-15, 1 + 1e-15):
            assert torch.equal(entries.float(), (entries * nudge).float())


def test_equal_angles_have_equal_bits():
    cosines, _, _ = _parts(96)
    phases = torch.arange(1, 384)
    assert torch.equal(cosines[phases], cosines[384 - phases])
    assert torch.equal(cosines[:193], -cosines[:193].flip(0))
    assert cosines[96] == 0.0 and cosines[0] == 1.0


@pytest.mark.parametrize("width", (64, 320, 768))
def test_no_entry_stands_out(width):
    largest = shared_basis(width).abs().max()
    assert largest <= math.sqrt(2 / width) * (1 + 1e-6)
    assert largest < haar(width, 0).abs().max()


@pytest.mark.parametrize(("width", "rank"), [(64, 4), (320, 20)])
def test_row_sets_meet_coordinate_subspaces_as_a_random_rotation_does(width, rank):
    """‖P_T Sᵀ‖² for rows S and every window T of width/4 inputs: mean r/4, spread like a Haar rotation's."""

    def energies(basis: torch.Tensor) -> torch.Tensor:
        inputs = basis.double().square().reshape(width // rank, rank, 4, width // 4)
        return inputs.sum(dim=(1, 3)).flatten()

    ours = energies(shared_basis(width))
    rotations = torch.stack([energies(haar(width, seed)) for seed in range(5)])
    assert ours.mean() == pytest.approx(rank / 4, rel=1e-6)
    assert rotations.mean() == pytest.approx(rank / 4, rel=1e-6)
    assert ours.std() < 1.25 * rotations.std(dim=1).mean()
    assert (ours - rank / 4).abs().max() < 1.25 * (rotations - rank / 4).abs().max()


def test_smooth_inputs_meet_no_slot_more_than_others():
    """The column signs hide the order of the inputs: a constant input is spread over all rows."""
    shares = (shared_basis(320).double() @ torch.ones(320, dtype=torch.float64)).square() / 320
    assert shares.sum() == pytest.approx(1, rel=1e-6)
    assert shares.max() < 0.06  # a plain cosine transform has 1 in one row and 0 elsewhere


def test_rows_are_rows_of_the_basis_in_the_order_asked():
    rows = shared_basis_rows(64, torch.tensor([9, 0, 63]))
    assert rows.dtype == torch.float32
    assert torch.equal(rows, shared_basis(64)[[9, 0, 63]])
    assert shared_basis_rows(64, []).shape == (0, 64)


@pytest.mark.parametrize("row", (-1, 64))
def test_rows_outside_are_refused(row):
    with pytest.raises(ConfigurationError, match=f"row {row} of a basis of width 64; allowed are 0 to 63"):
        shared_basis_rows(64, [0, row])


def test_width_zero_is_refused():
    with pytest.raises(ConfigurationError, match="width of a basis is 0"):
        shared_basis(0)
