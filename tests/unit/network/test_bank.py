import pytest
import torch

from sweep.network.bank import AdapterBank, AdapterSpec


def unet_output(base, bank: AdapterBank, counts: list[int], x, t, states, draws=None) -> torch.Tensor:
    with torch.no_grad(), bank.attached(), bank.rows(counts, draws):
        return base.unet(x, t, encoder_hidden_states=states).sample


@pytest.fixture
def inputs():
    g = torch.Generator().manual_seed(0)
    return (torch.randn(6, 4, 16, 16, generator=g), torch.arange(6) * 100, torch.randn(6, 77, 128, generator=g))


def random_bank(targets, specs: list[AdapterSpec], seeds: list[int]) -> AdapterBank:
    """Adapters whose `up` is not zero, each a function of its own seed."""
    bank = AdapterBank(targets, specs)
    fill(bank, seeds)
    return bank


def fill(bank: AdapterBank, seeds: list[int]) -> None:
    for k, seed in enumerate(seeds):
        bank.init_weights(k, seed)
        g = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for tensors in bank.weights(k).values():
                up = tensors["lora_up.weight"]
                up.copy_(0.05 * torch.randn(up.shape, generator=g))


def test_rows_get_their_own_adapter_and_no_other(base, targets, inputs) -> None:
    """Adapters of two ranks with unequal row counts in one pass, against each adapter alone."""
    x, t, states = inputs
    specs = [AdapterSpec(dim=4, alpha=4), AdapterSpec(dim=4, alpha=1), AdapterSpec(dim=16, alpha=8, strength=0.5)]
    together = unet_output(base, random_bank(targets, specs, [1, 2, 3]), [2, 1, 3], x, t, states)
    first = 0
    for spec, seed, count in zip(specs, [1, 2, 3], [2, 1, 3], strict=True):
        rows = slice(first, first + count)
        alone = unet_output(base, random_bank(targets, [spec], [seed]), [count], x[rows], t[rows], states[rows])
        assert torch.allclose(together[rows], alone, atol=1e-4), seed
        first += count
    bare = base.unet(x, t, encoder_hidden_states=states).sample
    assert (together - bare).abs().mean() > 0.01  # the adapters do something


def test_what_was_found_out_for_a_batch_holds_for_the_next_one_like_it(base, targets, inputs) -> None:
    """Other rows in between, other weights, and the same rows again: each as a bank that sees its first batch."""
    x, t, states = inputs
    specs = [AdapterSpec(dim=4, alpha=4), AdapterSpec(dim=4, alpha=1), AdapterSpec(dim=16, alpha=8)]
    bank, seeds = random_bank(targets, specs, [1, 2, 3]), [1, 2, 3]
    for counts in ([2, 2, 2], [2, 1, 3], [2, 2, 2], [0, 3, 3], [2, 2, 2]):
        fresh = random_bank(targets, specs, seeds)
        assert torch.equal(unet_output(base, bank, counts, x, t, states),
                           unet_output(base, fresh, counts, x, t, states)), counts
        seeds = [seed + 3 for seed in seeds]
        fill(bank, seeds)


def test_dropout_is_drawn_anew_for_each_batch(base, targets, inputs) -> None:
    """Also after batches like it without dropout, whose layout is kept, and before them."""
    x, t, states = inputs
    specs = [AdapterSpec(dim=4, alpha=4, module_dropout=0.5), AdapterSpec(dim=16, alpha=8)]
    bank, seen = random_bank(targets, specs, [1, 2]), []
    for index in (None, 0, None, 1):
        draws = None if index is None else [(7, index), (8, index)]
        fresh = random_bank(targets, specs, [1, 2])
        seen.append(unet_output(base, bank, [3, 3], x, t, states, draws))
        assert torch.equal(seen[-1], unet_output(base, fresh, [3, 3], x, t, states, draws)), index
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0][:3], seen[1][:3]) and not torch.equal(seen[1][:3], seen[3][:3])


def test_so_do_its_gradients_and_passes_without_them_in_between(base, targets, inputs) -> None:
    """As validation and generation come between two updates."""
    x, t, states = inputs
    specs = [AdapterSpec(dim=4, alpha=4), AdapterSpec(dim=16, alpha=8), AdapterSpec(dim=16, alpha=1)]

    def gradients(bank: AdapterBank) -> list[torch.Tensor]:
        bank.zero_grad()
        with bank.attached(), bank.rows([2, 2, 2]):
            base.unet(x, t, encoder_hidden_states=states).sample.square().mean().backward()
        return [bank.flat_grad(k).clone() for k in range(len(specs))]

    bank, seeds = random_bank(targets, specs, [1, 2, 3]), [1, 2, 3]
    for _ in range(3):
        for found, wanted in zip(gradients(bank), gradients(random_bank(targets, specs, seeds)), strict=True):
            assert torch.equal(found, wanted) and found.any()
        unet_output(base, bank, [2, 2, 2], x, t, states)
        seeds = [seed + 3 for seed in seeds]
        fill(bank, seeds)


def test_a_fresh_adapter_changes_nothing_and_hooks_go_away(base, targets, inputs) -> None:
    x, t, states = inputs
    bank = AdapterBank(targets, [AdapterSpec(dim=8, alpha=8)])
    bank.init_weights(0, seed=1)
    bare = base.unet(x, t, encoder_hidden_states=states).sample
    assert torch.allclose(unet_output(base, bank, [6], x, t, states), bare, atol=1e-5)
    changed = random_bank(targets, [AdapterSpec(dim=8, alpha=8)], [1])
    unet_output(base, changed, [6], x, t, states)
    assert torch.equal(base.unet(x, t, encoder_hidden_states=states).sample, bare)


def test_an_adapter_without_rows_sits_out(base, targets, inputs) -> None:
    x, t, states = inputs
    specs = [AdapterSpec(dim=4, alpha=4)] * 2
    both = unet_output(base, random_bank(targets, specs, [1, 2]), [0, 6], x, t, states)
    alone = unet_output(base, random_bank(targets, specs[:1], [2]), [6], x, t, states)
    assert torch.allclose(both, alone, atol=1e-4)


def test_initial_weights_depend_on_the_seed_alone(targets) -> None:
    first = AdapterBank(targets, [AdapterSpec(dim=4, alpha=4)])
    first.init_weights(0, seed=5)
    packed = AdapterBank(targets, [AdapterSpec(dim=4, alpha=4)] * 3)
    packed.init_weights(2, seed=5)
    for key, tensors in first.weights(0).items():
        down, up = tensors["lora_down.weight"], tensors["lora_up.weight"]
        assert torch.equal(down, packed.weights(2)[key]["lora_down.weight"])
        assert not up.any()
        bound = down.shape[1] ** -0.5  # kaiming-uniform(a = sqrt 5)
        assert down.abs().max() <= bound and down.abs().max() > 0.8 * bound


def test_gradients_land_in_the_flat_row(base, targets, inputs) -> None:
    x, t, states = inputs
    bank = random_bank(targets, [AdapterSpec(dim=4, alpha=4)] * 2, [1, 2])
    bank.zero_grad()
    with bank.attached(), bank.rows([3, 3]):
        base.unet(x, t, encoder_hidden_states=states).sample[:3].square().mean().backward()
    for part, _, span in bank.spans(0):
        assert bank.flat_grad(0)[span].any() == (part == "unet")
    assert not bank.flat_grad(1).any(), "an adapter whose rows are not in the loss has no gradient"


def test_a_forward_that_was_set_before_comes_back(targets) -> None:
    """Libraries that move weights between devices put theirs onto the module."""
    module = targets[0].module
    before = module.forward
    module.forward = mine = lambda x: before(x)
    try:
        with AdapterBank(targets, [AdapterSpec(dim=4, alpha=4)]).attached():
            assert module.forward is not mine
        assert module.forward is mine
    finally:
        del module.forward
    assert "forward" not in vars(module)
