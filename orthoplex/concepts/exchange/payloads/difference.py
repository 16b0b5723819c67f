"""Full differences of weights, norms and biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from torch import Tensor

from orthoplex.concepts.exchange.payloads.forms import difference_form
from orthoplex.concepts.exchange.payloads.payload import Difference, Payload
from orthoplex.concepts.exchange.payloads.row import Form
from orthoplex.concepts.exchange.payloads.scaling import scaled


@final
class FullDifference(Payload):
    """``Δw = f · difference``."""

    form = staticmethod(difference_form)

    def _change(self, parts: Mapping[str, Tensor], form: Form, factor: float) -> Difference:
        (values,) = parts.values()
        return Difference(scaled(values, factor))
