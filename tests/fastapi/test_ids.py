"""A thousand concurrent requests: the ids of every record are those of its request."""

from __future__ import annotations

import pytest

from tests.fastapi import ids


@pytest.mark.parametrize(
    ("requests", "instrument"),
    [
        pytest.param(1_000, "after", marks=pytest.mark.slow),
        (100, "before"),
        (100, "never"),
    ],
)
def test_every_record_of_every_place_has_its_own_requests_ids(requests, instrument):
    outcome = ids.run(requests, instrument=instrument)
    assert outcome.examples[:3] == []
    assert outcome.right == dict.fromkeys(ids.PLACES, requests)
    assert not outcome.wrong
