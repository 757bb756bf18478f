"""How threads wait is set before torch is loaded, and a user's own choice stays."""

import os

import pytest

from sweep.entry import run_guarded
from sweep.threads import spin_little


@pytest.mark.parametrize(("own", "kept"), [({}, {"GOMP_SPINCOUNT": "10000"}),
                                           ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
                                           ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"})])
def test_a_users_choice_stays(own: dict[str, str], kept: dict[str, str]) -> None:
    spin_little(own)
    assert own == kept


def test_an_entry_point_sets_it_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr("sys.argv", ["train.py"])
    seen = []
    assert run_guarded(lambda: seen.append(os.environ.get("GOMP_SPINCOUNT")), "config") == 0
    assert seen == ["10000"]
    monkeypatch.delenv("GOMP_SPINCOUNT")
