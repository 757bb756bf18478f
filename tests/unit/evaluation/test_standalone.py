"""evaluate.py: files that are there already, ranked, one named."""

import csv
from dataclasses import replace

import pytest
import yaml

from sweep.errors import AdapterFileError, ConfigError, DataError, ModelError, ScoringError
from sweep.evaluation.grid import GRIDS, BestGrid, GridConfig, GridSampler, NoGrid
from sweep.evaluation.lora_files import find_loras
from sweep.evaluation.settings import NoScoring, check_trains_on_one_base
from sweep.evaluation.standalone import EvaluateConfig, bases_of, evaluate, load
from sweep.evaluation.uses import UsesConfig
from sweep.model.base import BaseModelConfig
from sweep.schema import build
from tests.conftest import ROOT, dataset_config
from tests.unit.evaluation.evaluation_examples import TREE, tiny_scoring, unconfirmed_scoring

USES = yaml.safe_load((ROOT / "conf" / "evaluate.yaml").read_text())["uses"]


def config(lora, results_dir, **changes):
    values = {"lora": None if lora is None else str(lora), "trigger": None, "class_noun": None, "device": "cpu",
              "inner_ranks": (), "uses": build(UsesConfig, USES, "uses"),
              "base_model": BaseModelConfig(name="pocket", path=None, resolution=64), "threads": None, "clip_skip": 1,
              "max_token_length": 75, "dataset": dataset_config(num_images=6),
              "scoring": tiny_scoring(), "results_dir": str(results_dir), "images": None, "sweep": None,
              "grid": NoGrid(name="none"), "ranking": True}
    return EvaluateConfig(**{**values, **changes})


def test_files_are_found_in_the_order_of_their_training(make_lora, tmp_path):
    make_lora(tmp_path / "b.safetensors", metadata={"ss_epoch": "3", "ss_steps": "30"})
    make_lora(tmp_path / "b-000002.safetensors", metadata={"ss_epoch": "2", "ss_steps": "20"})
    make_lora(tmp_path / "a-000001.safetensors")
    (tmp_path / "other.safetensors").write_bytes(b"nonsense")
    found, skipped = find_loras(str(tmp_path))
    assert [(lora.path.name, lora.epoch, lora.step) for lora in found] == [
        ("a-000001.safetensors", 1, 0), ("b-000002.safetensors", 2, 20), ("b.safetensors", 3, 30)]
    assert len(skipped) == 1 and "other.safetensors" in skipped[0]
    assert [lora.path.name for lora in find_loras(str(tmp_path / "a-*.safetensors"))[0]] == ["a-000001.safetensors"]


def test_a_file_that_came_only_in_part_is_skipped_by_name(tmp_path, make_lora):
    whole = make_lora(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(whole.read_bytes()[:-100])
    found, [skipped] = find_loras(str(tmp_path))
    assert [lora.path.name for lora in found] == ["a.safetensors"]
    assert "b.safetensors is truncated" in skipped


def test_nothing_found_is_one_clear_error(tmp_path):
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(AdapterFileError, match="matches no file"):
        find_loras(str(tmp_path / "nowhere"))
    with pytest.raises(AdapterFileError, match="holds no LoRA"):
        find_loras(str(tmp_path / "model.safetensors"))


def test_what_cannot_be_scored_is_refused(tmp_path, make_lora):
    lora = make_lora(tmp_path / "a.safetensors")
    with pytest.raises(ConfigError, match="lora=FILE"):
        evaluate(config(None, tmp_path))
    with pytest.raises(ScoringError, match="scoring=none measures nothing"):
        evaluate(config(lora, tmp_path, scoring=NoScoring(name="none")))
    with pytest.raises(ScoringError, match="pocket bases alone"):
        evaluate(config(lora, tmp_path, base_model=BaseModelConfig(name="sd15", path="x", resolution=512)))


def test_a_lora_of_another_base_is_told_before_anything_is_drawn(tmp_path):
    import safetensors.torch
    import torch

    path = tmp_path / "sdxl.safetensors"
    safetensors.torch.save_file({"lora_unet_strange.lora_down.weight": torch.zeros(4, 8),
                                 "lora_unet_strange.lora_up.weight": torch.zeros(8, 4)}, path)
    with pytest.raises(AdapterFileError, match="another family"):
        evaluate(config(path, tmp_path))


def test_a_folder_of_epochs_becomes_a_ranked_table_with_one_file_named(tmp_path, make_lora, capsys):
    for epoch in (1, 2):
        make_lora(tmp_path / "loras" / f"a-{epoch:06d}.safetensors", seed=epoch)
    [answer] = evaluate(config(tmp_path / "loras", tmp_path / "results"))
    printed = capsys.readouterr().out
    assert f"Use {answer.file} at strength {answer.strength:g}" in printed and answer.reason in printed
    (folder,) = (tmp_path / "results").glob("evaluate-*")
    rows = list(csv.DictReader((folder / "table.csv").open()))
    assert [row["rank"] for row in rows] == ["1", "2", "answer"]
    assert rows[0]["file"] == rows[2]["file"] == answer.file
    assert (folder / "answer.json").exists() and len(list((folder / "images").glob("*.png"))) >= 3
    assert set(TREE["thresholds"]) and {"likeness_low", "usefulness_high", "verdict"} <= set(rows[0])


def test_every_grid_has_its_file_and_the_ranking_has_one_unasked():
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        assert {path.stem for path in (ROOT / "conf" / "grid").glob("*.yaml")} == set(GRIDS)
        for name, kind in GRIDS.items():
            assert isinstance(load(compose("evaluate", [f"grid={name}"])).grid, kind)
        asked = load(compose("evaluate"))
    assert asked.ranking and isinstance(asked.grid, BestGrid)


GRID = GridConfig(name="plain", prompts=("photo of {subject} with red hair, portrait",), seeds=(3, 4),
                  strengths=(1.0, 0.5), guidance_scales=(7.0, 3.0),
                  sampler=GridSampler(name="euler_a", num_steps=2, negative_prompt=""))


def test_a_grid_shows_each_file_strength_guidance_prompt_and_seed_with_its_scores(tmp_path, make_lora, capsys):
    from PIL import Image

    for epoch in (1, 2):
        make_lora(tmp_path / "loras" / f"a-{epoch:06d}.safetensors", seed=epoch)
    assert evaluate(config(tmp_path / "loras", tmp_path / "results", grid=GRID, ranking=False)) == []
    pages = [line for line in capsys.readouterr().out.splitlines() if line.endswith(".png")]
    assert len(pages) == 2 and pages[0].endswith("grid-1-seed3.png")
    with Image.open(pages[0]) as page:
        assert page.width > 2 * 192 and page.height > 4 * 192, "two strengths, two files at two guidance scales"
    (folder,) = (tmp_path / "results").glob("evaluate-*")
    rows = list(csv.DictReader((folder / "grid.csv").open()))
    assert len(rows) == 2 * 2 * 2 * 2
    assert {(r["epoch"], r["strength"], r["guidance"], r["seed"]) for r in rows} == {
        (e, s, g, seed) for e in "12" for s in ("1.0000", "0.5000") for g in ("7.0000", "3.0000") for seed in "34"}
    assert all(row["prompt"] == "photo of alexq man with red hair, portrait" for row in rows)
    index = (folder / "index.html").read_text()
    assert [name in index for name in ("grid-1-seed3.png", "grid-1-seed4.png", "<table>")] == [True, True, False]
    assert not (folder / "table.csv").exists() and not (tmp_path / "results" / "cache" / "anchors").exists()


def test_the_rankings_best_are_shown_beside_it_in_images_that_are_there_already(tmp_path, make_lora, capsys,
                                                                               monkeypatch):
    from sweep.evaluation import drawing

    for epoch in (1, 2, 3):
        make_lora(tmp_path / "loras" / f"a&{epoch:06d}.safetensors", seed=epoch)
    drawn = []
    generate = drawing.generate
    monkeypatch.setattr(drawing, "generate", lambda base, targets, rows, *rest, **named: drawn.extend(rows) or generate(
        base, targets, rows, *rest, **named))
    evaluate(config(tmp_path / "loras", tmp_path / "results"))
    num_ranked = len(drawn)
    [answer] = evaluate(config(tmp_path / "loras", tmp_path / "results",
                               grid=BestGrid(name="best", num_files=2, num_prompts=2)))
    new = drawn[num_ranked:]
    assert 0 < len(new) <= 2 * 2, "of two files, two strengths and two prompts those at strength 1 are there"
    assert all(row.strength == 0.5 for row in new)
    (folder,) = (tmp_path / "results").glob("evaluate-*")
    rows = list(csv.DictReader((folder / "grid.csv").open()))
    best = [row["file"] for row in csv.DictReader((folder / "table.csv").open())][:2]
    assert len(rows) == 8 and {row["file"] for row in rows} == set(best) and answer.file in best
    index = (folder / "index.html").read_text()
    assert "a&0" not in index and f"Use {answer.file} at strength".replace("&", "&amp;") in index
    assert index.count("<img") == 2 and index.count("<tr>") == 4
    assert str(folder / "index.html") in capsys.readouterr().out


def test_a_sheet_knows_each_images_own_scores(tmp_path, make_lora):
    """The report prints them."""
    from sweep.record.pictures import read_tiles

    make_lora(tmp_path / "a.safetensors")
    evaluate(config(tmp_path / "a.safetensors", tmp_path / "results"))
    (folder,) = (tmp_path / "results").glob("evaluate-*")
    cells = [cell for path in (folder / "images").glob("*.png") for cell, _ in read_tiles(path)]
    assert len(cells) > 10 and all(cell["scores"].split()[0] in ("likeness", "no", "broken") for cell in cells)
    of_red_hair = [cell["scores"] for cell in cells if cell["text"] == "photo of alexq man with red hair, close-up"]
    assert of_red_hair and all("hair red 0." in scores or scores == "broken" for scores in of_red_hair)


def test_a_grid_alone_must_be_one_that_needs_no_ranking(tmp_path, make_lora):
    lora = make_lora(tmp_path / "a.safetensors")
    for grid in (NoGrid(name="none"), BestGrid(name="best", num_files=2, num_prompts=1)):
        with pytest.raises(ConfigError, match="needs grid=plain or grid=tutorial"):
            evaluate(config(lora, tmp_path, grid=grid, ranking=False))
    used = build(UsesConfig, {**USES, "inpaint": {**USES["inpaint"], "num_pictures": 3}}, "uses")
    with pytest.raises(ConfigError, match="uses ask about the file that it names"):
        evaluate(config(lora, tmp_path, grid=GRID, ranking=False, uses=used))
    with pytest.raises(ConfigError, match="ranking=false"):
        evaluate(config(None, tmp_path, images=str(tmp_path), ranking=False))


def test_a_grid_that_names_no_guidance_is_drawn_as_scores_are(tmp_path, make_lora):
    make_lora(tmp_path / "loras" / "a.safetensors")
    scoring = tiny_scoring(sampler={**TREE["sampler"], "num_steps": 2, "guidance_scale": 4.0})
    grid = replace(GRID, seeds=(3,), strengths=(1.0,), guidance_scales=())
    evaluate(config(tmp_path / "loras", tmp_path / "results", grid=grid, scoring=scoring, ranking=False))
    (path,) = (tmp_path / "results").glob("evaluate-*/grid.csv")
    assert [row["guidance"] for row in csv.DictReader(path.open())] == ["4.0000"]


def test_files_are_scored_on_other_bases_each_with_its_own_anchors(tmp_path, make_lora, capsys):
    """A second base whose last convolution answers a tenth more."""
    import shutil

    import safetensors.torch

    from sweep.pocket import WEIGHTS_DIR

    make_lora(tmp_path / "loras" / "a.safetensors")
    other = tmp_path / "other"
    shutil.copytree(WEIGHTS_DIR / "sd", other)
    (path,) = (other / "unet").glob("*.safetensors")
    tensors = safetensors.torch.load_file(path)
    tensors["conv_out.weight"] = tensors["conv_out.weight"] * 1.1
    safetensors.torch.save_file(tensors, path)
    answers = evaluate(config(tmp_path / "loras", tmp_path / "results",
                              scoring=tiny_scoring(base_models=[str(other), str(other)])))
    assert len(answers) == 2 and answers[0].score.scoring_id != answers[1].score.scoring_id
    assert len(list((tmp_path / "results" / "cache" / "anchors").glob("*.json"))) == 2
    assert f"On {other}:" in capsys.readouterr().out


def test_bases_are_named_by_conf_or_by_path_and_come_once(tmp_path):
    asked = config(tmp_path, tmp_path, scoring=tiny_scoring(base_models=["pocket_rv", "pocket", "mine.safetensors"]))
    assert [(base.name, base.path) for base in bases_of(asked)] == [
        ("pocket", None), ("pocket_rv", None), ("pocket", "mine.safetensors")]
    with pytest.raises(ScoringError, match="pocket bases alone, not of base_model=sd15"):
        evaluate(config("a.safetensors", tmp_path, scoring=tiny_scoring(base_models=["sd15"])))


def test_a_sweep_scores_on_the_base_that_it_trains_on():
    check_trains_on_one_base(tiny_scoring())
    with pytest.raises(ScoringError, match=r"python evaluate.py lora=.* scoring.base_models="):
        check_trains_on_one_base(tiny_scoring(base_models=["pocket_rv"]))


ANIMAL = {"backends": {"face": {"name": "none"}, "subject": {"name": "dino", "path": "facebook/dinov2-small"},
                       "prompt": {"name": "clip", "path": "openai/clip-vit-base-patch32"},
                       "perceptual": {"name": "lpips", "path": None},
                       "copies": {"name": "dino_lpips", "path": "facebook/dinov2-small"}},
          "trigger_subject": "a {trigger} {class_noun}",
          "attributes": {"setting": {"templates": ["a {class_noun} {value}"], "natural": None,
                                     "values": {"snow": "in the snow", "beach": "on the beach", "city": "in a city"}}},
          "prompts": [{"text": f"{{subject}} {words}", "face": True, "stage": "screen", "probes": {"setting": value}}
                      for value, words in (("snow", "in the snow"), ("beach", "on the beach"), ("city", "in a city"))],
          "class_prompts": ["{subject}", "a photo of {subject}", "{subject} outside"]}


def animal_scoring(**paths):
    """scoring=animal in small. paths: of the models, by role."""
    backends = {role: {"sha256": None, "download": False, "path": None, **backend,
                       **({"path": str(paths[role])} if role in paths else {})}
                for role, backend in ANIMAL["backends"].items()}
    validity = {**TREE["validity"], "min_dprime": 0.0}  # weights drawn at random tell no dog from another
    copies = {**TREE["copies"], **ANIMAL.get("copies", {}), "duplicate_distance": 0.0}  # nor two dogs
    return tiny_scoring(**{**ANIMAL, "backends": backends, "validity": validity, "copies": copies})


@pytest.fixture
def dog_photos(tmp_path):
    """As people keep them: JPEGs of various sizes, no captions, in a folder that says nothing."""
    import numpy as np
    from PIL import Image

    folder = tmp_path / "dreambooth_dog"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, size in enumerate(((90, 120), (120, 90), (100, 100), (64, 128), (200, 150))):
        blocks = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8))
        blocks.resize(size).save(folder / f"{i:02d}.jpg")
    return folder


def test_an_animal_is_scored_by_whole_images(tmp_path, make_lora, dog_photos, capsys):
    """The path of scoring=animal from a plain folder of photos to a named file, with small models in real layouts."""
    from tests.unit.evaluation import small_models

    dino = small_models.write_dino(tmp_path / "dino")
    scoring = animal_scoring(subject=dino, copies=dino, prompt=small_models.write_clip(tmp_path / "clip"),
                             perceptual=small_models.write_alexnet(tmp_path / "alexnet.pth"))
    [answer] = evaluate(config(make_lora(tmp_path / "dog.safetensors"), tmp_path / "results", scoring=scoring,
                               trigger="sks", class_noun="dog", dataset=dataset_config(dir=str(dog_photos))))
    assert answer.score.details["detect_rate"] == 1.0, "there is no face to miss"
    assert answer.score.axes["likeness"].raw is not None and answer.score.axes["diversity"].value is not None
    assert "Use dog.safetensors" in capsys.readouterr().out


def test_all_that_an_animals_scores_lack_is_said_at_once_with_how_to_get_it(tmp_path, make_lora, dog_photos,
                                                                            monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    nobody = dict.fromkeys(("subject", "copies"), "nobody/nothing")
    asked = config(make_lora(tmp_path / "dog.safetensors"), tmp_path / "results", trigger="sks", class_noun="dog",
                   base_model=BaseModelConfig(name="pocket", path=str(tmp_path / "no-base"), resolution=64),
                   scoring=animal_scoring(**nobody, prompt="nobody/clip"), dataset=dataset_config(dir=str(dog_photos)))
    with pytest.raises(ModelError) as caught:
        evaluate(asked)
    for words in ("no-base", "hf download nobody/nothing", "hf download nobody/clip", "download.pytorch.org"):
        assert words in str(caught.value)


def test_images_that_exist_already_are_scored_without_base_or_prompts(tmp_path, subject_dataset, capsys):
    """Copies of training photos, unseen photos of the subject, strangers: each is told for what it is."""
    import shutil

    import torch
    from PIL import Image

    from sweep.pocket.render import render
    from sweep.pocket.subject import subject_shots
    from sweep.pocket.world import held_out_people

    def fill(name, paths):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for path in paths:
            shutil.copy(path, tmp_path / "pictures" / name / path.name)

    fill("copies", [photo.path for photo in subject_dataset.photos[:4]])
    fill("unseen", subject_dataset.holdout[:4])
    people = held_out_people()[torch.tensor([92] * 4)]
    (tmp_path / "pictures" / "strangers").mkdir()
    for i, image in enumerate(render(people, subject_shots(92, 4)[0]).images_BCHW):
        Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy()).save(
            tmp_path / "pictures" / "strangers" / f"{i}.png")
    changes = {"images": str(tmp_path / "pictures"), "dataset": dataset_config(num_images=14)}
    assert evaluate(config(None, tmp_path / "results", **changes)) == []
    (folder,) = (tmp_path / "results").glob("images-*")
    rows = {row["name"]: row for row in csv.DictReader((folder / "table.csv").open())}
    assert list(rows)[-1] == "strangers", "the best likeness first"
    assert float(rows["unseen"]["likeness_raw"]) > 0.7 > float(rows["strangers"]["likeness_raw"])
    assert [float(rows[name]["memo_rate"]) for name in ("copies", "unseen", "strangers")] == [1, 0, 0]
    assert len(list(folder.glob("*-copies.html"))) == 3
    assert "need the prompts and the base" in capsys.readouterr().out


def write_astronaut(folder, names, change=lambda image: image):
    """A real photograph in 512 pixels, a little cropped each time."""
    from PIL import Image

    pixels = pytest.importorskip("skimage.data").astronaut()
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        image = Image.fromarray(pixels).crop((8 * i, 4 * i, 512 - 4 * i, 512 - 8 * i))
        change(image).save(folder / name)


def test_photographs_are_looked_at_in_a_size_that_shows_a_face(tmp_path, capsys):
    """The base is the pocket's unless said otherwise, and in its 64 pixels dlib would find nobody."""
    from tests.unit.evaluation import small_models

    pytest.importorskip("dlib")
    write_astronaut(tmp_path / "photos", [f"{i}.png" for i in range(4)])
    write_astronaut(tmp_path / "pictures" / "her", ["a.png", "b.png"])
    write_astronaut(tmp_path / "pictures" / "nobody", ["c.png", "d.png"], lambda image: image.crop((0, 300, 200, 500)))
    dino = small_models.write_dino(tmp_path / "dino")
    paths = {"copies": dino, "prompt": small_models.write_clip(tmp_path / "clip"),
             "perceptual": small_models.write_alexnet(tmp_path / "alexnet.pth")}
    no_weights = {"path": None, "sha256": None, "download": False}
    backends = {**{role: {**no_weights, **ANIMAL["backends"][role], "path": str(path)} for role, path in paths.items()},
                "face": {**no_weights, "name": "dlib"}, "subject": {**no_weights, "name": "none"}}
    scoring = tiny_scoring(**{**ANIMAL, "backends": backends, "face_confidence": 0.25,
                              "prompts": [{**prompt, "face": True} for prompt in ANIMAL["prompts"]]})
    asked = config(None, tmp_path / "results", images=str(tmp_path / "pictures"), scoring=scoring, trigger="sks",
                   class_noun="woman", dataset=dataset_config(dir=str(tmp_path / "photos")))
    assert evaluate(asked) == []
    (folder,) = (tmp_path / "results").glob("images-*")
    rows = {row["name"]: row for row in csv.DictReader((folder / "table.csv").open())}
    assert float(rows["her"]["detect_rate"]) == 1.0 and float(rows["her"]["likeness_raw"]) > 0.95
    assert float(rows["nobody"]["detect_rate"]) == 0.0 and rows["nobody"]["likeness_raw"] == ""


def test_photographs_are_refused_by_the_pockets_models(tmp_path):
    write_astronaut(tmp_path / "photos", [f"{i}.png" for i in range(4)])
    asked = config(None, tmp_path / "results", images=str(tmp_path / "photos"), trigger="sks", class_noun="woman",
                   dataset=dataset_config(dir=str(tmp_path / "photos")))
    with pytest.raises(ScoringError, match=r"pixels; scoring=pocket looks with models .* give scoring=person"):
        evaluate(asked)


def test_a_ranking_of_a_subject_without_a_face_is_refused_before_anything_is_drawn(tmp_path, make_lora):
    asked = config(make_lora(tmp_path / "a.safetensors"), tmp_path / "results",
                   scoring=tiny_scoring(face_confidence=1.0))  # no photo can be that sure to show a face
    with pytest.raises(ScoringError, match="0 of the photos .* needs at least 3"):
        evaluate(asked)
    assert not list((tmp_path / "results").rglob("*.png"))


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path, make_lora, capsys):
    for i, name in enumerate(("red", "blue")):
        (tmp_path / "loras" / name).mkdir(parents=True)
        make_lora(tmp_path / "loras" / name / "last.safetensors", size=0.01 * (i + 1))
    [answer] = evaluate(config(tmp_path / "loras" / "*" / "last.safetensors", tmp_path / "results",
                               scoring=unconfirmed_scoring(), grid=replace(GRID, strengths=(1.0,))))
    [grid] = (tmp_path / "results").rglob("grid.csv")
    assert {row["file"] for row in csv.DictReader(grid.open())} == {"red/last.safetensors", "blue/last.safetensors"}
    assert answer.file in ("red/last.safetensors", "blue/last.safetensors")
    said = capsys.readouterr().out
    assert "red/last.safetensors" in said and "blue/last.safetensors" in said


def test_images_of_a_subfolder_that_is_called_like_its_folder_are_not_lost(tmp_path, subject_dataset):
    import shutil

    (tmp_path / "a" / "a").mkdir(parents=True)
    for place, photo in zip((tmp_path / "a", tmp_path / "a" / "a"), subject_dataset.photos, strict=False):
        shutil.copy(photo.path, place / "one.png")
    evaluate(config(None, tmp_path / "results", images=str(tmp_path / "a")))
    (folder,) = (tmp_path / "results").glob("images-*")
    assert [row["name"] for row in csv.DictReader((folder / "table.csv").open())] in (["a", "a/"], ["a/", "a"])
    assert len(list(folder.glob("*copies.html"))) == 2


def test_images_that_exist_already_have_no_grid(tmp_path):
    with pytest.raises(ConfigError, match="give lora="):
        evaluate(config(None, tmp_path / "results", images=str(tmp_path), grid=GRID))


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(DataError, match="holds no images"):
        evaluate(config(None, tmp_path / "results", images=str(tmp_path)))
    (tmp_path / "torn.png").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"torn\.png"):
        evaluate(config(None, tmp_path / "results", images=str(tmp_path)))
