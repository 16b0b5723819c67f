import pytest
import torch
from torch.nn import functional

from orthoplex.models import precision

CPU = torch.device("cpu")


def attention_dtypes():
    query = torch.randn(1, 2, 4, 8, requires_grad=True)
    product = functional.linear(query, torch.randn(8, 8))
    return product.dtype, functional.scaled_dot_product_attention(product, product, product).dtype


def test_no_is_float32():
    with precision("no", CPU):
        assert attention_dtypes() == (torch.float32, torch.float32)


def test_bf16_keeps_attention_in_float32():
    with precision("bf16", CPU):
        assert attention_dtypes() == (torch.bfloat16, torch.float32)
    assert attention_dtypes() == (torch.float32, torch.float32)


def test_bf16_attention_is_exact_and_differentiable():
    x = torch.randn(1, 2, 4, 8, requires_grad=True)
    expected = functional.scaled_dot_product_attention(x, x, x)
    with precision("bf16", CPU):
        found = functional.scaled_dot_product_attention(query=x, key=x, value=x, is_causal=False)
    assert torch.equal(found, expected)
    found.sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()


def test_precision_ends_after_an_error():
    with pytest.raises(RuntimeError), precision("bf16", CPU):
        raise RuntimeError
    assert not torch.is_autocast_enabled("cpu")
    assert attention_dtypes() == (torch.float32, torch.float32)
