"""Losses as recorded: bit for bit on the same kind of CPU, within 1e-4 on any other."""

import json

import pytest

from tests.equivalence.record_losses import RECORD, fingerprint, losses


def test_losses_replay(base, targets) -> None:
    """Fails after a change that alters results. If that was the purpose, renew the record (see `record_losses`) and
    raise `identity.TRAINING_VERSION`."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    found = losses(base, targets)
    assert {name: len(rows) for name, rows in found.items()} == dict.fromkeys(record["losses"], 20)
    if fingerprint() == record["fingerprint"]:
        assert found == record["losses"]
    for name, rows in found.items():
        assert rows == pytest.approx(record["losses"][name], rel=1e-4)
