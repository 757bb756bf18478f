import pytest
import torch

from sweep.training.loop import train
from sweep.training.pack import Pack
from sweep.training.validation import NUM_BUCKETS, HeldOut, validation_losses
from tests.equivalence.trials import CAPTIONS, member, moments


@pytest.fixture(scope="module")
def photos() -> list[HeldOut]:
    return [HeldOut(moments_MHW=one, caption=caption) for one, caption in zip(moments(), CAPTIONS, strict=True)]


def pack_of(base, targets, *names: str) -> Pack:
    seeds = {"a": 1, "b": 2}
    pack = Pack(base, targets, [member(name, dim=4, seed=seeds[name], unet_lr=1e-3, ema_decay=0.5) for name in names])
    for done, _ in enumerate(train(pack), start=1):
        if done == 3:
            break
    return pack


def test_a_member_is_measured_as_if_it_were_alone(base, targets, photos) -> None:
    pack = pack_of(base, targets, "a", "b")
    both = validation_losses(pack, pack.members, photos)
    [second] = validation_losses(pack, pack.members[1:], photos)
    alone = pack_of(base, targets, "b")
    [solo] = validation_losses(alone, alone.members, photos)
    assert both[0].loss != pytest.approx(both[1].loss, rel=1e-3)
    for found in (both[1], second):
        assert found.loss == pytest.approx(solo.loss, rel=1e-4)
        assert found.buckets == pytest.approx(solo.buckets, rel=1e-4)
    assert both[0].loss == pytest.approx(sum(both[0].buckets.values()) / NUM_BUCKETS)


def test_it_is_the_error_of_what_is_saved_and_changes_nothing(base, targets, photos) -> None:
    pack = pack_of(base, targets, "a")
    [one] = pack.members
    before = pack.flat_of(one).clone()
    [first] = validation_losses(pack, [one], photos)
    assert torch.equal(pack.flat_of(one), before)
    assert not pack.flat_of(one).requires_grad and validation_losses(pack, [one], photos) == [first]
    assert one.ema_N is not None
    one.ema_N.zero_()  # as if nothing had been learnt
    [untrained] = validation_losses(pack, [one], photos)
    assert untrained.loss != first.loss


def test_noise_belongs_to_the_photo(base, targets, photos) -> None:
    """Another order or companion changes no photo's share; photos of several shapes go in passes of their own."""
    pack = pack_of(base, targets, "a")
    [whole] = validation_losses(pack, pack.members, photos)
    [turned] = validation_losses(pack, pack.members, photos[::-1])
    singles = [validation_losses(pack, pack.members, [photo])[0].loss for photo in photos]
    assert turned.loss == pytest.approx(whole.loss, rel=1e-5)
    assert whole.loss == pytest.approx(sum(singles) / len(singles), rel=1e-5)
    assert list(whole.buckets) == ["0-249", "250-499", "500-749", "750-999"]
    wide = HeldOut(moments_MHW=photos[0].moments_MHW.repeat(1, 1, 2), caption="alexq man")
    [mixed] = validation_losses(pack, pack.members, [photos[0], wide])
    [only] = validation_losses(pack, pack.members, [wide])
    assert mixed.loss == pytest.approx((singles[0] + only.loss) / 2, rel=1e-5)
