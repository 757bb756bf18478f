"""DreamBooth and textual inversion: a step is plain torch's, a pack is its trials alone, a resume no interruption."""

import copy

import pytest
import torch

from sweep.model.text import token_ids
from sweep.network.targets import find_layers
from sweep.training.loop import train
from sweep.training.objective import losses, noised_batch
from sweep.training.pack import Member, Pack
from sweep.training.state import Position, latest_save, load_states, save_states
from sweep.training.validation import HeldOut, validation_losses
from tests.equivalence.trials import CAPTIONS, member, moments, run


@pytest.fixture(scope="module")
def layers(base):
    return find_layers(base)


def dreambooth(name: str, **settings) -> Member:
    return member(name, method="dreambooth", **{"unet_lr": 1e-4, "text_encoder_lr": 1e-4, **settings})


def words(name: str, **settings) -> Member:
    return member(name, method="textual_inversion", **{"unet_lr": 0.0, "text_encoder_lr": 5e-3, **settings})


def steps(pack: Pack, count: int) -> list[list[float]]:
    found = []
    for rows in train(pack):
        found.append([row.loss for row in rows])
        if len(found) == count:
            break
    return found


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert expected.norm() > 0
    return float((found - expected).norm() / expected.norm())


def plain_loss(base, batch, config, states: torch.Tensor) -> torch.Tensor:
    noised = noised_batch(batch, base.alphas_cumprod, base.scaling_factor, base.prediction_type, config)
    predicted = base.unet(noised.noisy_BCHW, noised.timesteps_B, encoder_hidden_states=states).sample
    return losses(predicted, noised, batch, base.alphas_cumprod, base.prediction_type, config).mean()


@pytest.mark.parametrize("trains_text", [True, False])
def test_dreambooth_is_plain_fine_tuning(base, layers, trains_text: bool) -> None:
    """torch's AdamW on copies of the models themselves, all of whose weights but the tables are trained."""
    one = dreambooth("a", batch_size=2, max_grad_norm=0, **({} if trains_text else {"text_encoder_lr": 0.0}))
    pack = Pack(base, layers, [one])
    mine = steps(pack, 1)
    first_gradients = {(key, name): leaf.grad[0].clone() for key, leaves in pack.bank.groups[0].leaves.items()
                       for name, leaf in leaves.items()}
    mine += steps(pack, 2)

    plain = copy.copy(base)
    plain.unet, plain.text_encoders = copy.deepcopy(base.unet), [copy.deepcopy(base.text_encoder)]
    tables = {"embeddings.token_embedding.weight", "embeddings.position_embedding.weight"}
    parameters = [*plain.unet.parameters()]
    if trains_text:
        parameters += [p for name, p in plain.text_encoder.named_parameters() if name not in tables]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.01)
    gradients = None
    for step in range(3):
        [batch] = one.data.batches_at(step)
        optimizer.zero_grad()
        loss = plain_loss(plain, batch, one.config, plain.text_states(batch.captions).states_BLD)
        loss.backward()
        if gradients is None:
            gradients = {id(p): p.grad.clone() for p in parameters}
        optimizer.step()
        assert mine[step] == [pytest.approx(loss.item(), rel=1e-5)]
    names = {"unet": dict(plain.unet.named_parameters()), "text_encoder": dict(plain.text_encoder.named_parameters())}
    whole = torch.cat([each.flatten() for each in gradients.values()]).norm()
    seen = 0
    for target in pack.bank.groups[0].targets:
        for kind in ("weight", "bias")[:1 + target.has_bias]:
            parameter = names[target.component][f"{target.path.removeprefix('text_model.')}.{kind}"]
            distance = first_gradients[target.key, kind] - gradients[id(parameter)]
            assert distance.norm() < 1e-5 * max(gradients[id(parameter)].norm(), 1e-3 * whole), (target.key, kind)
            seen += parameter.numel()
    assert seen == sum(p.numel() for p in parameters)


def test_textual_inversion_is_plain_training_of_a_table(base, layers) -> None:
    """transformers' own way: the table gets new rows, and only these are stepped."""
    one = words("a", batch_size=2, max_grad_norm=0)
    pack = Pack(base, layers, [one])
    mine = steps(pack, 2)

    plain = copy.copy(base)
    encoder = copy.deepcopy(base.text_encoder)
    plain.text_encoders = [encoder]
    ids = token_ids(base.tokenizer, "man")
    table, num_old = encoder.get_input_embeddings().weight, len(encoder.get_input_embeddings().weight)
    first = torch.stack([table[ids[i % len(ids)]] for i in range(2)]).detach().clone()
    new = first.clone().requires_grad_()
    optimizer = torch.optim.AdamW([new], lr=5e-3, weight_decay=0.01)
    for step in range(2):
        [batch] = one.data.batches_at(step)
        encoder.get_input_embeddings().forward = lambda ids: torch.nn.functional.embedding(ids, torch.cat([table, new]))
        rows = torch.tensor([_ids(base, caption, num_old) for caption in batch.captions])
        optimizer.zero_grad()
        loss = plain_loss(base, batch, one.config, encoder(rows).last_hidden_state)
        loss.backward()
        optimizer.step()
        assert mine[step] == [pytest.approx(loss.item(), rel=1e-5)]
    [(_, own)] = pack.weights_of(one).items()
    assert relative(own["emb_params"] - first, new.detach() - first) < 1e-4
    assert all(torch.equal(a, b) for a, b in zip(base.text_encoder.parameters(), copy.deepcopy(
        base.text_encoder).parameters(), strict=True))


def _ids(base, caption: str, num_old: int) -> list[int]:
    """Written out: the words before the trigger, two new ids, the words behind it."""
    before, after = caption.split("alexq")
    ids = [*token_ids(base.tokenizer, before), num_old, num_old + 1, *token_ids(base.tokenizer, after)]
    padding = [base.tokenizer.pad_token_id] * (75 - len(ids))
    return [base.tokenizer.bos_token_id, *ids, base.tokenizer.eos_token_id, *padding]


@pytest.mark.parametrize("make", [dreambooth, words])
def test_a_pack_is_its_trials_alone(base, layers, make) -> None:
    """First gradients, and losses over some steps; one companion goes NaN."""
    def three() -> list[Member]:
        return [make("a", num_steps=6), make("b", seed=2, num_steps=6, batch_size=2), make("c", seed=3, num_steps=6)]

    for k in (0, 1):
        pack, alone = Pack(base, layers, three()), Pack(base, layers, [three()[k]])
        pack.flat_of(pack.members[2]).fill_(torch.nan)
        steps(pack, 1)
        steps(alone, 1)
        assert relative(pack.bank.flat_grad(k), alone.bank.flat_grad(0)) < 1e-5
    pack = Pack(base, layers, three())
    pack.flat_of(pack.members[2]).fill_(torch.nan)
    together = run(pack)
    for k, name in enumerate("ab"):
        assert together[name] == pytest.approx(run(Pack(base, layers, [three()[k]]))[name], rel=1e-4)


@pytest.mark.parametrize("make", [dreambooth, words])
def test_half_precision_is_near_full_and_the_same_in_a_pack(base, layers, make) -> None:
    def gradient(precision: str, *seeds: int) -> torch.Tensor:
        pack = Pack(base, layers, [make(str(seed), seed=seed, mixed_precision=precision) for seed in seeds])
        steps(pack, 1)
        return pack.bank.flat_grad(len(seeds) - 1).clone()

    half = gradient("bf16", 1)
    assert relative(half, gradient("no", 1)) < 0.1 and relative(gradient("bf16", 2, 1), half) < 0.1


def test_methods_share_a_pass(base, layers) -> None:
    """Packing keeps them apart, to use the memory well; the bank does not have to."""
    def three() -> list[Member]:
        return [member("a", num_steps=3), dreambooth("b", num_steps=3), words("c", num_steps=3)]

    together = run(Pack(base, layers, three()))
    for one in three():
        assert together[one.train_id] == pytest.approx(run(Pack(base, layers, [one]))[one.train_id], rel=1e-4)


@pytest.mark.parametrize("make", [dreambooth, words])
def test_a_resume_is_no_interruption(base, layers, make, tmp_path) -> None:
    def two() -> list[Member]:
        return [make("a"), make("b", seed=2)]

    folders = {name: tmp_path / name for name in "ab"}
    pack = Pack(base, layers, two())
    steps(pack, 2)
    save_states(pack, folders, Position())
    steps(pack, 2)
    resumed = Pack(base, layers, two())
    load_states(resumed, folders, latest_save(folders))
    steps(resumed, 2)
    for k in range(2):
        assert torch.equal(pack.bank.flat(k), resumed.bank.flat(k))


def test_held_out_photos_are_read_with_the_new_words(base, layers) -> None:
    """Beside a companion with other words; the loss is that of the words written out."""
    photos = [HeldOut(moments_MHW=moments()[i], caption=CAPTIONS[i]) for i in range(2)]
    pack = Pack(base, layers, [words("a"), words("b", seed=2)])
    moved = torch.randn(pack.bank.flat(1).shape, generator=torch.Generator().manual_seed(5))
    pack.flat_of(pack.members[1]).add_(moved)
    together = validation_losses(pack, pack.members, photos)
    alone = Pack(base, layers, [words("b", seed=2)])
    alone.flat_of(alone.members[0]).add_(moved)
    [expected] = validation_losses(alone, alone.members, photos)
    assert together[1].loss == pytest.approx(expected.loss, rel=1e-4) != pytest.approx(together[0].loss, rel=1e-4)


def test_words_take_the_triggers_place(base) -> None:
    read = words("a").read(CAPTIONS)
    ids = [token_ids(base.tokenizer, text) for text in read]
    assert all(row.count(-1) == row.count(-2) == 1 and row.index(-2) == row.index(-1) + 1 for row in ids)
    assert [[i for i in row if i >= 0] for row in ids] == [
        token_ids(base.tokenizer, caption.replace("alexq", "")) for caption in CAPTIONS]
    assert words("a").read(["Alexq's hat, alexqs"]) == [" \ue000\ue001 's hat, alexqs"]
