"""What else a file is good for: from afar, beside a second LoRA, for inpainting."""

import dataclasses

import pytest

from sweep.comparison import Interval
from sweep.errors import AdapterFileError, ConfigError, ScoringError
from sweep.evaluation.lora_files import FoundLora
from sweep.evaluation.mixing import score_mix
from sweep.evaluation.paired import FaceUnit, change_of, face_units, likeness_of, told_change
from sweep.evaluation.scorer import Scorer, ScoreRequest
from sweep.evaluation.standalone import evaluate
from sweep.evaluation.uses import UsesConfig, score_uses
from sweep.files import read_json
from sweep.network.bank import AdapterSpec
from sweep.network.lora_file import read_lora, write_lora
from sweep.schema import build
from sweep.trial import Answer
from tests.unit.evaluation.evaluation_examples import CEILING, FLOOR, TREE, images, unconfirmed_scoring
from tests.unit.evaluation.test_choice import score
from tests.unit.evaluation.test_standalone import USES, config
from tests.unit.network.tools.test_make import lora_file

HALF = FLOOR + (CEILING - FLOOR) / 2


def uses(**changes) -> UsesConfig:
    """framing__words=... changes uses.framing.words."""
    tree = {name: dict(part) for name, part in USES.items()}
    for key, value in changes.items():
        part, name = key.split("__")
        tree[part][name] = value
    return build(UsesConfig, tree, "uses")


def units(likeness: float, *, n: int = 8, floor: float = FLOOR) -> dict[int, FaceUnit]:
    """As likeness is normalised between floor and ceiling, with a little spread."""
    return {i: FaceUnit(floor + likeness * (CEILING - floor) + 0.02 * (-1) ** i, floor) for i in range(n)}


def test_a_planted_loss_of_likeness_is_told_and_none_is_not():
    worse = change_of(units(0.8), units(0.4), CEILING)
    assert worse[0] == pytest.approx(-0.4) and told_change(*worse).startswith("less like the subject (-0.40")
    assert told_change(*change_of(units(0.8), units(0.78), CEILING)).startswith("as like the subject")
    assert told_change(*change_of(units(0.8), units(0.8, floor=0.4), CEILING)).startswith("as like the subject"), (
        "each against its own floor")
    assert told_change(-0.4, Interval(-0.9, 0.1, 3)).startswith("unsure on so few images")
    assert told_change(*change_of(units(0.4), units(0.8), CEILING)).startswith("more like the subject (+0.40")
    assert "can't be known" in told_change(*change_of({}, units(0.8), CEILING))
    assert likeness_of(units(0.8), (CEILING,)).value == pytest.approx(0.8)
    assert likeness_of({}, (CEILING,)).value is None
    assert likeness_of(units(0.8), (CEILING,), "no faces").reason == "no faces"


def test_a_face_that_is_missing_counts_as_the_base_there():
    base = {m.key: m for m in images("screen", lambda _: FLOOR, 0.9).images}
    own = images("screen", lambda i: None if i == 0 else CEILING, 0.9, broken=(1,)).images
    found = face_units(own, base)
    assert found[0].gen == found[0].base and found[2].gen > 0.8 and 1 not in found
    faceless = {key: dataclasses.replace(m, face=None) for key, m in base.items()}
    assert face_units(own, faceless) == {}


def test_all_uses_of_a_named_file_are_told_and_drawn_once(make_lora, tmp_path, capsys):
    lora, other = (make_lora(tmp_path / f"{name}.safetensors", seed=seed) for seed, name in enumerate("ab"))
    asked = config(lora, tmp_path / "results",
                   scoring=unconfirmed_scoring(sampler={**TREE["sampler"], "num_steps": 8}),
                   uses=uses(framing__words=["close-up", "half-body"], framing__num_seeds=3, mix__file=str(other),
                             mix__strengths=[0.6], inpaint__num_pictures=3))
    [answer] = evaluate(asked)
    said = capsys.readouterr().out
    assert f"From near to far, at strength {answer.at}:\n  close-up: likeness " in said
    assert "\n  half-body: likeness" in said
    assert f"Beside {other}, both at:\n  0.6: likeness" in said
    assert f"Inpainting, at strength {answer.at}:\n  all pictures (3, " in said
    [path] = (tmp_path / "results").glob("evaluate-*/uses.json")
    told = read_json(path)
    near, far = told["framing"]
    assert near["framing"] == "close-up" and near["change"] is None and far["change"] == pytest.approx(
        far["likeness"]["value"] - near["likeness"]["value"])
    [mixed], [inpainted] = told["mix"], told["inpaint"]
    assert mixed["change"] == pytest.approx(mixed["beside"]["axes"]["likeness"]["value"]
                                            - mixed["alone"]["axes"]["likeness"]["value"], abs=1e-6)
    assert inpainted["rest_changed"] < inpainted["rest_autoencoded"] + 0.02
    drawn = {image: image.stat().st_mtime_ns for image in (tmp_path / "results" / "cache" / "images").rglob("*.png")}
    evaluate(asked)
    assert read_json(path) == told
    assert drawn == {image: image.stat().st_mtime_ns
                     for image in (tmp_path / "results" / "cache" / "images").rglob("*.png")}


def answer_of(path, strength: float = 1.0) -> Answer:
    """As if the ranking had named the file."""
    named = score(1, 0.5, file=path.name, strength=strength)
    return Answer(file=path.name, epoch=1, step=10, strength=strength, score=named, reason="")


def negated(path, lora, targets):
    """A LoRA that undoes another one."""
    import torch

    read = read_lora(lora, targets)
    weights = {key: {**tensors, "lora_up.weight": -tensors["lora_up.weight"],
                     "alpha": torch.tensor(read.layers[key].alpha)} for key, tensors in read.weights.items()}
    write_lora(path, weights, dtype=torch.float16, metadata={})
    return path


@pytest.fixture(scope="module")
def scorer(base, targets, subject_dataset, tmp_path_factory):
    return Scorer(base, targets, unconfirmed_scoring(), subject_dataset, tmp_path_factory.mktemp("results"))


def test_beside_a_lora_that_undoes_it_nothing_of_it_is_left(make_lora, scorer, targets, tmp_path):
    """Both really drawn: the sum of a LoRA and its opposite draws what the LoRA draws at no strength."""
    lora = FoundLora(make_lora(tmp_path / "a.safetensors"), 1, 10)
    other = negated(tmp_path / "other.safetensors", lora.path, targets)
    asked = uses(mix__file=str(other), mix__strengths=[0.6]).mix
    [mixed] = score_mix(asked, lora, answer_of(lora.path), scorer, tmp_path)
    [nothing] = scorer.score([ScoreRequest(file=lora.path, epoch=0, step=0, scores_dir=tmp_path / "s",
                                           images_dir=tmp_path / "i", strength=1e-6)], "refine")
    for name in ("nearest_prompts", "burn_saturation"):
        undone, alone = (each.details[name] - nothing.details[name] for each in (mixed.beside, mixed.alone))
        assert abs(undone) < 0.05 * abs(alone), name


def test_a_second_lora_of_another_kind_and_its_own_words(make_lora, scorer, targets, tmp_path):
    """LoHa can't be added rank to rank: it is multiplied out. Its words stand in the prompts, the anchors' too."""
    lora = FoundLora(make_lora(tmp_path / "a.safetensors"), 1, 10)
    loha = lora_file(tmp_path / "b.safetensors", targets, AdapterSpec(dim=2, alpha=2, algorithm="loha"))
    asked = uses(mix__file=str(loha), mix__strengths=[0.7], mix__words="in style b").mix
    [mixed] = score_mix(asked, lora, answer_of(lora.path), scorer, tmp_path)
    assert mixed.alone.scoring_id == mixed.beside.scoring_id != scorer.scoring_id
    [summed] = (tmp_path / "mixed").rglob("*.safetensors")
    assert summed.name == "a+b-0.7.safetensors" and not read_lora(summed, targets).unknown


def test_a_use_that_can_not_be_scored_says_why_and_the_others_are(make_lora, scorer, targets, tmp_path, capsys):
    lora = FoundLora(make_lora(tmp_path / "a.safetensors"), 1, 10)
    dora = lora_file(tmp_path / "b.safetensors", targets, AdapterSpec(dim=2, alpha=2, algorithm="dora"))
    asked = uses(mix__file=str(dora), framing__words=["close-up"], framing__num_seeds=3)
    told = score_uses(asked, lora, answer_of(lora.path), scorer, tmp_path)
    assert "depends on the base's weights" in told["mix"]["reason"] and len(told["framing"]) == 1
    assert "can't be scored: " in capsys.readouterr().out and read_json(tmp_path / "uses.json") == told


@pytest.mark.parametrize(("changes", "error", "message"), [
    ({"mix__file": "nowhere"}, AdapterFileError, "matches no file"),
    ({"mix__file": "loras/*.safetensors"}, ConfigError, "matches 2 LoRA files; give one"),
    ({"mix__file": "loras/a.safetensors", "mix__strengths": []}, ConfigError, "mix.strengths is empty"),
    ({"framing__words": ["far"], "framing__prompt": "{subject}"}, ScoringError, "lacks {framing}"),
])
def test_what_can_not_be_asked_is_refused_before_the_base_is_loaded(make_lora, tmp_path, monkeypatch, changes, error,
                                                                    message):
    for name in "ab":
        make_lora(tmp_path / "loras" / f"{name}.safetensors")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        evaluate(config("loras", tmp_path / "results", uses=uses(**changes)))
    assert not (tmp_path / "results").exists()
