"""Linear heads: fit, read, store."""

import pytest
import torch
from safetensors.torch import save_file

from orthoplex.errors import ConfigurationError
from orthoplex.evaluation import LinearHead, fit_linear_head, load_head, save_head


def clusters(count=30, noise=0.2):
    """Three clusters on three axes of a five-dimensional space, far from the origin."""
    generator = torch.Generator().manual_seed(0)
    names = ["cat", "dog", "owl"] * count
    centres = torch.eye(5)[:3].repeat(count, 1)
    return 100.0 + centres + noise * torch.randn(3 * count, 5, generator=generator), names


def test_logits_are_the_affine_map():
    head = LinearHead(torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([0.5, 1.0]), ("a", "b"), "e")
    assert head.logits(torch.tensor([[1.0, 1.0], [0.0, -2.0]])).tolist() == [[3.5, 0.0], [-3.5, 3.0]]
    assert head.predict(torch.tensor([[1.0, 1.0], [0.0, -2.0]])) == ["a", "b"]
    assert head.accuracy(torch.tensor([[1.0, 1.0], [0.0, -2.0]]), ["a", "a"]) == 0.5


def test_fit_separates_clusters_whatever_their_offset():
    features, names = clusters()
    head = fit_linear_head(features[:60], names[:60], encoder="e")
    assert head.classes == ("cat", "dog", "owl")
    assert head.accuracy(features[60:], names[60:]) >= 0.9


def test_fit_does_not_depend_on_the_global_seed():
    features, names = clusters(5)
    torch.manual_seed(1)
    one = fit_linear_head(features, names, encoder="e")
    torch.manual_seed(2)
    assert torch.equal(one.weight, fit_linear_head(features, names, encoder="e").weight)


def test_more_weight_decay_gives_smaller_weights():
    features, names = clusters(5)
    loose = fit_linear_head(features, names, encoder="e", weight_decay=1e-3)
    tight = fit_linear_head(features, names, encoder="e", weight_decay=1.0)
    assert tight.weight.norm() < 0.3 * loose.weight.norm()


def test_fit_reaches_the_stationary_point():
    # at the optimum the gradient is (softmax - onehot)^T x / n + decay * W = 0, in the scaled inputs
    features, names = clusters(10)
    head = fit_linear_head(features, names, encoder="e", weight_decay=0.1)
    centred = features - features.mean(dim=0)
    spread = centred.pow(2).sum(dim=1).mean().sqrt()
    truth = torch.nn.functional.one_hot(torch.tensor([head.classes.index(name) for name in names])).float()
    residual = head.logits(features).softmax(dim=1) - truth
    gradient = residual.T @ (centred / spread) / len(names) + 0.1 * head.weight * spread
    assert gradient.abs().max() < 1e-3


def test_given_classes_keep_their_order_and_may_be_empty():
    features, names = clusters(5)
    head = fit_linear_head(features, names, encoder="e", classes=["owl", "fox", "dog", "cat"])
    assert head.classes == ("owl", "fox", "dog", "cat")
    assert head.weight.shape == (4, 5)
    assert "fox" not in head.predict(features)


def test_save_and_load_keep_half_precision(tmp_path):
    features, names = clusters(5)
    head = fit_linear_head(features, names, encoder="mobilenetv2-bottleneck-224px-grid1")
    save_head(head, tmp_path / "subjects.safetensors")
    loaded = load_head(tmp_path / "subjects.safetensors")
    assert loaded.classes == head.classes
    assert loaded.encoder == head.encoder
    assert torch.equal(loaded.weight, head.weight.half().float())
    assert [path.name for path in tmp_path.iterdir()] == ["subjects.safetensors"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LinearHead(torch.zeros(2, 3), torch.zeros(2), ("a",), "e"), r"\(2, 3\) and bias \(2,\)"),
        (lambda: fit_linear_head(torch.zeros(2, 3), ["a"], encoder="e"), "1 true classes for 2 rows"),
        (lambda: fit_linear_head(torch.zeros(2, 3), ["a", "a"], encoder="e"), "allowed: two or more"),
        (
            lambda: fit_linear_head(torch.zeros(2, 3), ["a", "z"], encoder="e", classes=["a", "b"]),
            "'z' is unknown; allowed: a, b",
        ),
        (lambda: LinearHead(torch.zeros(1, 3), torch.zeros(1), ("a",), "e").logits(torch.zeros(1, 2)), r"\(n, 3\)"),
        (lambda: LinearHead(torch.zeros(1, 3), torch.zeros(1), ("a",), "e").accuracy(torch.zeros(1, 3), []), "0 true"),
    ],
)
def test_errors_name_the_value_and_what_is_allowed(call, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        call()
    assert "allowed" in str(caught.value)


def test_load_refuses_what_is_no_head(tmp_path):
    with pytest.raises(ConfigurationError, match="nothing.safetensors does not exist"):
        load_head(tmp_path / "nothing.safetensors")
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigurationError, match="has version None; allowed: 1"):
        load_head(tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not a tensor file")
    with pytest.raises(ConfigurationError, match="not readable"):
        load_head(tmp_path / "broken.safetensors")
