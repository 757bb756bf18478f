"""A pack's size follows memory: what a trial takes is counted, as many get a place as there is room for, and the next
plan says it."""

import pytest

from sweep.packing import MOST_TRIALS
from sweep.room import known_room
from sweep.training.memory import trial_bytes
from sweep.trial import DONE
from tests.equivalence.packs import memberships, statuses
from tests.equivalence.test_refill import spec_of
from tests.equivalence.trials import member


def test_bytes_follow_what_a_trial_needs(base, targets) -> None:
    plain = trial_bytes(base, targets, member("a"))
    one = member("a", dim=16)
    assert plain < trial_bytes(base, targets, one) and one.step == 0 and not one.handles, "it is left as it was"
    double = trial_bytes(base, targets, member("a", batch_size=2)) - plain
    assert 0.7 * plain < double < 1.1 * plain
    assert trial_bytes(base, targets, member("a", gradient_checkpointing=True)) < 0.7 * plain


@pytest.mark.parametrize(("trials_of_room", "most"), [(2.5, 2), (100.0, 4), (0.1, 1)])
def test_as_many_as_there_is_room_for(worker, photos, tmp_path, monkeypatch, trials_of_room, most) -> None:
    each = []

    def remembered(*args):
        each.append(trial_bytes(*args))
        return each[-1]

    class Memory:
        @property
        def available(self) -> int:
            return int(trials_of_room * each[-1] / 0.6)

    monkeypatch.setattr("sweep.worker.probe.trial_bytes", remembered)
    monkeypatch.setattr("psutil.virtual_memory", Memory)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    spec = spec_of(tmp_path, photos, max_trials=None)
    worker.run(spec)
    assert [status.status for status in statuses(spec)] == [DONE] * 4
    assert max(len(members) for _, members in memberships(tmp_path)) == most
    found = known_room(tmp_path, spec.trials[1])  # the one of the highest rank
    assert found is not None and found.gib_each == pytest.approx(each[0] / 2**30)
    assert found.max_trials == min(MOST_TRIALS, max(1, int(trials_of_room)))
