"""What tests see of pictures while they are made."""

from __future__ import annotations

import pytest

from orthoplex.models import Base, PictureRequest


def recorded_requests(base: Base, monkeypatch: pytest.MonkeyPatch) -> list[PictureRequest]:
    """Return the list of all requests of pictures from here on; it grows."""
    seen: list[PictureRequest] = []
    original = type(base.family).picture

    def recording(self, request):
        seen.append(request)
        return original(self, request)

    monkeypatch.setattr(type(base.family), "picture", recording)
    return seen
