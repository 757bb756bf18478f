import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from record_examples import entry, result, score
from record_on_disk import make_sweep

from sweep.errors import ConfigError
from sweep.record.asked import asked, brought, settings_of
from sweep.record.diary import diary_text, write_collected, write_diary
from sweep.record.entry import SweepEntry, read_entry, write_entry
from sweep.record.facts import read_record
from sweep.record.report_data import report_data
from sweep.record.sentences import (
    answer_sentence,
    learned,
    lessons_of,
    results_sentence,
    value_text,
    verdict_sentence,
)
from sweep.record.views import write_views
from sweep.trial import DIVERGED, FAILED, PRUNED, TrialResult


@pytest.mark.parametrize(("verdict", "words"), [
    ("does not look like the subject", "Doesn't look like the subject"),
    ("overtrained", "overtrained"), ("memorised", "training photos"), ("underfit", "only begins"),
    ("broken", "neither"), ("very good", "Very good"), ("invalid", "Can't be judged"), ("low variety", "look alike"),
    ("something new", "Something new.")])
def test_verdicts_become_sentences(verdict: str, words: str) -> None:
    assert words in verdict_sentence(verdict)


def test_additions_to_a_verdict_are_kept() -> None:
    assert verdict_sentence("good + memorised the clothes").endswith("It also memorised the clothes.")


def test_the_answer_names_file_strength_trigger_and_interval() -> None:
    text = answer_sentence(entry(), [result(1, (0.8, 0.75, 0.85)), result(2, (0.3, 0.2, 0.4))])
    assert "results/trials/id0001/checkpoints/alexq-000003.safetensors" in text
    assert "`alexq man <lora:alexq-000003:0.8>`" in text
    assert "0.80 (0.75 to 0.85)" in text
    assert text.startswith("Use")
    assert "beats the file of the other trial by more than chance" in text and "best of 2" in text


def test_bleed_stands_beside_the_usefulness_that_it_lowers() -> None:
    text = diary_text(entry(), [result(1, (0.3, 0.2, 0.4)), result(2, status=FAILED)])
    header, _, row, failed = (line.split(" | ") for line in text.splitlines() if line.startswith("| "))
    assert row[header.index("bleed")] == "0.34" and failed[header.index("bleed")] == ""
    assert "bleed 0.34 (0.16 to 0.53), usefulness 0.30" in text
    assert "bleed not measured" in results_sentence(result(1, (0.3, 0.2, 0.4), stage="screen"))


def test_what_is_wrong_with_the_photos_is_said_once_whatever_the_answer() -> None:
    pair = [result(1, (0.8, 0.75, 0.85)), result(2, (0.3, 0.2, 0.4))]
    noted = [replace(one, answer=replace(one.answer, photo_notes=("two people",))) for one in pair if one.answer]
    assert answer_sentence(entry(), noted).endswith("About the photos: two people.")
    nothing = result(1, None)
    assert nothing.answer is not None
    nothing = replace(nothing, answer=replace(nothing.answer, photo_notes=("no face was found in 3 of 3 photos",)))
    assert "no face was found in 3 of 3 photos." in answer_sentence(entry(), [nothing])
    assert "About the photos" not in answer_sentence(entry(), pair)


def test_a_tie_names_no_winner() -> None:
    text = answer_sentence(entry(), [result(1, (0.65, 0.55, 0.75)), result(2, (0.7, 0.6, 0.8))])
    assert text.startswith("A tie: 2 trials can't be told apart")
    assert text.index("id0002") < text.index("id0001"), "in the order in which to try them"
    assert "Use" not in text


def test_the_best_of_a_poor_lot_is_not_praised() -> None:
    text = answer_sentence(entry(), [result(1, (0.3, 0.2, 0.4), verdict="underfit")])
    assert text.startswith("None is good yet; the least bad (underfit)")


def test_without_a_file_the_answer_says_why() -> None:
    assert "all 2 trials failed" in answer_sentence(entry(), [result(1, status=FAILED), result(2, status=FAILED)])
    assert "no face in the references" in answer_sentence(entry(), [result(1, None)])


def test_where_likeness_fails_is_told() -> None:
    one = result(1, (0.7, 0.6, 0.8))
    assert one.answer is not None
    details = {"likeness_close_up": 0.84, "likeness_close_up_low": 0.8, "likeness_close_up_high": 0.88,
               "likeness_full_body": 0.31}
    told = replace(one, answer=replace(one.answer, score=replace(
        one.answer.score, details=details, notes=("less like the subject in full body pictures",))))
    assert ("Likeness by framing: close-up 0.84 (0.80 to 0.88), full body 0.31. Less like the subject in full body "
            "pictures.") in results_sentence(told)
    assert "framing" not in results_sentence(one)


def test_failed_and_diverged_trials_say_their_reason() -> None:
    failed = results_sentence(result(1, status=FAILED, reason="CUDA out of memory"))
    diverged = results_sentence(result(1, status=DIVERGED, reason="loss is NaN"))
    assert failed == "None. It failed at step 100 of 100: CUDA out of memory"
    assert "diverged" in diverged and "loss is NaN" in diverged


def test_a_trial_that_was_ended_early_says_where_and_why() -> None:
    reason = "ended early at step 100: behind the others (median)"
    unscored = results_sentence(result(1, status=PRUNED, reason=reason))
    assert unscored == "None. It was ended early at step 100 of 100: behind the others (median)"
    scored = replace(result(1, (0.3, 0.2, 0.4)), status=PRUNED, reason=reason)
    assert results_sentence(scored).endswith(
        "It was ended early at step 100 of 100: behind the others (median); what it had saved before was scored.")


def test_one_pair_speaks_of_files_not_of_the_setting() -> None:
    [sentence] = learned(["network_dim"], [result(1, (0.3, 0.2, 0.4)), result(2, (0.8, 0.7, 0.9))])
    assert sentence.startswith("network_dim 8 -> 16: usefulness +0.50")
    assert "not of the setting" in sentence
    assert "differ by more than chance on the same prompts" in sentence


def test_a_difference_inside_its_interval_is_called_noise() -> None:
    [sentence] = learned(["network_dim"], [result(1, (0.6, 0.5, 0.7)), result(2, (0.65, 0.5, 0.8))])
    assert "may be noise" in sentence


def test_only_trials_that_differ_in_one_key_are_paired() -> None:
    grid = [result(i, (u, u - 0.01, u + 0.01), settings={"network_dim": d, "seed": s})
            for i, (d, s, u) in enumerate([(8, 1, 0.3), (8, 2, 0.4), (32, 1, 0.5), (32, 2, 0.8)], start=1)]
    dims, seeds = learned(["network_dim", "seed"], grid)
    assert "usefulness +0.30" in dims
    assert "network_dim 32 and network_dim 8 cannot be told apart over 2 and 2 training seeds" in dims
    assert "usefulness +0.20" in seeds and "chance" in seeds


def test_a_setting_is_better_only_if_it_is_over_its_seeds() -> None:
    def grid(rate: float, spread: float) -> list[TrialResult]:
        values = [(d, s, 0.3 + 0.4 * (d == 32) + spread * s) for d in (8, 32) for s in (0, 1, 2)]
        return [result(int(rate * 1e6) + i, (u, u - 0.01, u + 0.01),
                       settings={"network_dim": d, "seed": s, "unet_lr": rate})
                for i, (d, s, u) in enumerate(values)]

    keys = ["network_dim", "unet_lr", "seed"]
    steady, jumpy = grid(1e-4, 0.01), grid(1e-3, 0.3)
    assert "network_dim 32 is better than network_dim 8 over 3 and 3 training seeds" in learned(keys, steady)[0]
    assert "can't be told apart in 1" in learned(keys, steady + jumpy)[0]
    assert "higher in 1, lower in 0" in learned(keys, steady + jumpy)[0]
    one_seed = [r for r in steady if r.trial.settings["seed"] == 0]
    assert "speaks of these two files, not of the setting" in learned(keys, one_seed)[0]


def seeded(*rows: tuple[int, float, tuple[int, ...]]) -> list[TrialResult]:
    """Trials of (network_dim, unet_lr, seeds); the larger rank is better by 0.4."""
    values = [(dim, rate, seed) for dim, rate, seeds in rows for seed in seeds]
    useful = [0.3 + 0.4 * (dim == 32) + 0.01 * seed for dim, _, seed in values]
    return [result(i, (u, u - 0.01, u + 0.01), settings={"network_dim": dim, "unet_lr": rate, "seed": seed})
            for i, (u, (dim, rate, seed)) in enumerate(zip(useful, values, strict=True))]


def test_a_claim_about_one_combination_names_it() -> None:
    keys, better = ["network_dim", "unet_lr", "seed"], "network_dim 32 is better than network_dim 8 over 3 and 3"
    whole = ((8, 1e-4, (0, 1, 2)), (32, 1e-4, (0, 1, 2)))
    assert f". With unet_lr 1e-4: {better}" in learned(keys, seeded(*whole))[0]
    sentence = learned(keys, seeded(*whole, (8, 1e-3, (0,)), (32, 1e-3, (0,))))[0]
    assert f". With unet_lr 1e-4, 1 of 2 combinations of the other settings: {better}" in sentence
    assert sentence.endswith("; of 1 more nothing can be claimed.")
    more = ((8, 1e-2, (0, 1)), (32, 1e-2, (0, 1)), (8, 1e-3, (0,)), (32, 1e-3, (0,)))
    sentence = learned(keys, seeded(*whole, *more))[0]
    assert "of 2 combinations of the other settings usefulness is higher in 2, lower in 0" in sentence
    assert sentence.endswith("; of 1 more nothing can be claimed.")
    assert f". {better}" in learned(["network_dim", "seed"], seeded(*whole))[0]


def test_one_seed_on_one_side_is_not_called_one_seed_each() -> None:
    keys, one = ["network_dim", "unet_lr", "seed"], ((8, 1e-4, (0,)),)
    even = learned(keys, seeded(*one, (32, 1e-4, (0,))))[0]
    assert "; one training seed each, so it speaks of these two files" in even
    uneven = learned(keys, seeded(*one, (32, 1e-4, (0, 1, 2))))[0]
    assert "one training seed each" not in uneven
    assert "; network_dim 8 was trained with fewer than 2 seeds, so it speaks of these two files" in uneven


def test_the_diary_tells_each_trial_and_its_cost(tmp_path: Path) -> None:
    results = [result(1, (0.8, 0.75, 0.85)), result(2, status=FAILED, reason="a | b\nc")]
    text = write_diary(tmp_path / "results" / "alex", entry(note="my words"), results).read_text()
    top = text.split("\n## ")[0]
    assert "`alexq man <lora:alexq-000003:0.8>`" in top
    assert "| 1 (best) | 8 |" in top and "| 2 | 16 |" in top
    assert "1 of 2 trials did not finish" in top
    assert "> my words" in text
    assert "network_dim = 8" in text and "unet_lr = 1e-4" in text and "images = 14 (photos/)" in text
    assert "Cost: 1.5 minutes" in text
    assert "It failed at step 100 of 100: a | b c" in text


def test_the_diary_is_the_same_when_rebuilt() -> None:
    results = [result(1, (0.8, 0.75, 0.85)), result(2, (0.7, 0.6, 0.8))]
    assert diary_text(entry(), results) == diary_text(entry(), results)


def test_trials_of_other_anchors_stand_apart_with_an_answer_of_their_own() -> None:
    """As those of another base: theirs is not the sweep's, but whoever uses that base needs it."""
    one = [result(n, (u, u - 0.02, u + 0.02)) for n, u in ((1, 0.2), (2, 0.5), (3, 0.3))]
    lone = result(4, (0.9, 0.8, 1.0), scoring_id="s2")
    text = diary_text(entry(), [*one, lone])
    assert "`results/trials/id0002/checkpoints/" in text and "not compared with the rest: trial 4. " not in text
    assert "not compared with the rest: trial 4." in text and "Among" not in text
    text = answer_sentence(entry(), [*one, lone, result(5, (0.6, 0.58, 0.62), scoring_id="s2")])
    first, apart = text.split("Scored against other anchors and so not compared with the rest: trial 4, 5. ")
    assert first.startswith("Use `results/trials/id0002/")
    assert apart.startswith("Among 4, 5: Use `results/trials/id0004/")
    assert "beats the file of the other trial by more than chance" in apart


POLYNOMIAL = {"scheduler": {"name": "polynomial", "power": 1}, "seed": 42}
EXPERIMENTS = ({"network_dim": 128, "network_alpha": 128.0, "repeats": 40, **POLYNOMIAL},
               {"network_dim": 128, "network_alpha": 1.0, "repeats": 40, **POLYNOMIAL},
               {"network_dim": 8, "network_alpha": 8.0, "repeats": 10, **POLYNOMIAL},
               {"network_dim": 8, "network_alpha": 8.0, "repeats": 50, **POLYNOMIAL})


def _of(number: int, settings: dict[str, Any], config: dict[str, Any]) -> TrialResult:
    made = result(number, (0.2 * number, 0.2 * number - 0.02, 0.2 * number + 0.02), settings=settings)
    return replace(made, trial=replace(made.trial, config=config))


def _experiments() -> tuple[SweepEntry, list[TrialResult]]:
    """The question's defaults are of no trial: the experiments say otherwise."""
    question = {"network_dim": 32, "network_alpha": None, "repeats": None, "seed": 42, "scheduler.name": "constant",
                "scheduler.warmup": 10}
    return (entry(question=question, swept_keys=("experiment",)),
            [_of(n, {"experiment": f"alex{n}"}, config) for n, config in enumerate(EXPERIMENTS, start=1)])


def test_what_experiments_bring_along_is_told_of_the_trials_and_no_default_as_theirs() -> None:
    sweep, results = _experiments()
    assert brought(sweep, results) == ("network_dim", "network_alpha", "repeats")
    assert asked(sweep, results) == {"trigger": "alexq", "class_noun": "man", "seed": 42,
                                     "scheduler.name": "polynomial", "scheduler.power": 1}
    text = diary_text(sweep, results)
    assert "network_dim = 128  \nnetwork_alpha = network_dim  \nrepeats = 40" in text, "the first in full"
    assert "same as trial 1 but with experiment = alex2, network_alpha = 1  \n" in text
    assert "same as trial 3 but with experiment = alex4, repeats = 50  \n" in text
    assert "with it differ network_dim, network_alpha, repeats" in text
    assert "network_dim = 32" not in text and "constant" not in text and "warmup" not in text


def test_what_is_not_told_of_experiments_is_no_lesson_of_what_is() -> None:
    """Trials that differ in rank, and in a place or method too, say nothing about the rank."""
    sweep, results = _experiments()
    for key, value in (("dataset", {"dir": "elsewhere"}), ("method", {"name": "dreambooth"}),
                       ("scheduler", {**POLYNOMIAL["scheduler"], "warmup": "none"})):
        other = replace(results[1], trial=replace(results[1].trial, config={**results[1].trial.config, key: value}))
        [lesson] = lessons_of(sweep, [results[0], other])
        assert lesson.startswith("experiment alex1 -> alex2"), key


def test_lessons_of_experiments_need_no_neighbours() -> None:
    """128, 8 at another number of repeats, 32: the first and the last differ in rank alone."""
    sweep, _ = _experiments()
    configs = [{**EXPERIMENTS[0], "network_dim": dim, "network_alpha": float(dim), "repeats": repeats}
               for dim, repeats in ((128, 40), (8, 10), (32, 40))]
    results = [_of(n, {"experiment": f"alex{n}"}, config) for n, config in enumerate(configs, start=1)]
    [lesson] = lessons_of(sweep, results)
    assert lesson.startswith("network_dim 128 -> 32: usefulness +0.40")


def test_a_trial_is_told_nothing_that_it_does_not_have() -> None:
    """AdaFactor has no betas; a refused trial has no settings but those that were asked."""
    sweep = entry(question={"optimizer.name": "adamw", "unet_lr": None}, swept_keys=("experiment",))
    adam = {"optimizer": {"name": "adamw", "betas": [0.9, 0.99]}, "unet_lr": 1e-4}
    results = [_of(1, {"experiment": "a"}, adam),
               _of(2, {"experiment": "b"}, {"optimizer": {"name": "adafactor"}, "unet_lr": 1e-4}),
               _of(3, {"experiment": "c"}, {**adam, "unet_lr": 1e-3}), _of(4, {"experiment": "d"}, {})]
    assert [set(one) for one in settings_of(sweep, results)] == [
        {"experiment", "optimizer.name", "optimizer.betas", "unet_lr"}, {"experiment", "optimizer.name", "unet_lr"},
        {"experiment", "optimizer.name", "optimizer.betas", "unet_lr"}, {"experiment"}]
    text = diary_text(sweep, results)
    assert "null" not in text.partition("## Trials")[2] and "same as trial 1 but with experiment = c" in text


def test_bases_and_photos_that_a_sweep_varies_are_read_off_its_trials() -> None:
    configs = [{"base_model": {"name": name}, "dataset": {"num_images": num}}
               for name, num in (("sd15", 14), ("sdxl", 14), ("sd15", 25))]
    results = [_of(n, {"network_dim": n}, config) for n, config in enumerate(configs, start=1)]
    assert "base_model = sd15, sdxl\n- images = 14 (photos/)" in diary_text(entry(), results[:2])
    assert "base_model = sd15, sdxl\n- images = photos/\n" in diary_text(entry(), results)
    assert "base_model = pocket\n" in diary_text(entry(), [])


def test_the_most_useful_is_named_as_what_it_is() -> None:
    """One that is not called good may still be the most useful."""
    pair = [result(1, (0.8, 0.75, 0.85), verdict="low variety"), result(2, (0.3, 0.2, 0.4))]
    assert answer_sentence(entry(), pair).startswith("The most useful, though not called good, (low variety) is `")
    bad = [pair[0], result(2, (0.3, 0.2, 0.4), verdict="underfit")]
    assert answer_sentence(entry(), bad).startswith("None is good yet; the least bad (low variety) is `")


def test_a_screen_that_measured_bleed_is_not_before_it() -> None:
    first, second = (score((0.5, 0.4, 0.6), stage="screen", epoch=epoch) for epoch in (1, 2))
    without = replace(result(1), scores=(first, second))
    assert "Epoch by epoch, before bleed: 1:" in diary_text(entry(), [without])
    measured = replace(result(1), scores=(replace(first, details={**first.details, "bleed": 0.3}), second))
    assert "Epoch by epoch: 1:" in diary_text(entry(), [measured])


def test_lessons_of_experiments_are_about_the_setting_that_differs_alone() -> None:
    sweep, results = _experiments()
    alpha, repeats = lessons_of(sweep, results)
    assert alpha.startswith("network_alpha network_dim -> 1: usefulness +0.20")
    assert repeats.startswith("repeats 10 -> 50: usefulness +0.20")
    [other] = lessons_of(sweep, results[1:3])
    assert other.startswith("experiment alex2 -> alex3: usefulness +0.20"), "where several differ it is theirs together"


def test_a_setting_that_follows_another_is_no_difference_of_its_own() -> None:
    """network_alpha: null is network_dim, whatever the rank of a trial."""
    def swept(alphas: dict[int, float]) -> list[TrialResult]:
        return [_of(n, {"network_dim": dim}, {"network_dim": dim, "network_alpha": alphas[dim]})
                for n, dim in ((1, 8), (2, 32))]

    for value, alphas, shown in ((None, {8: 8.0, 32: 32.0}, "network_dim"), (8.0, {8: 8.0, 32: 8.0}, 8.0)):
        sweep = entry(question={"network_alpha": value})
        assert brought(sweep, swept(alphas)) == ()
        assert asked(sweep, swept(alphas))["network_alpha"] == shown


def test_a_swept_setting_leaves_the_others_of_its_group_in_the_question() -> None:
    results = [_of(n, {"dataset.captions": captions},
                   {"dataset": {"captions": captions, "num_images": 14, "dir": f"here{n}"}})
               for n, captions in ((1, True), (2, False))]
    sweep = entry(question={}, swept_keys=("dataset.captions",))
    assert asked(sweep, results) == {"trigger": "alexq", "class_noun": "man", "dataset.num_images": 14}


def test_the_question_says_what_null_stands_for_and_leaves_out_what_plays_no_part() -> None:
    question = {"trigger": None, "network_alpha": None, "repeats": None, "conv_dim": None, "conv_alpha": None,
                "text_encoder_lr": 5e-5, "optimizer.unet_lr": 1e-4, "optimizer.text_encoder_lr": 1e-5,
                "optimizer.eps": 1e-8, "loss_type": "l2", "huber_c": 0.1, "huber_schedule": "snr",
                "multires_noise_iterations": 0, "multires_noise_discount": 0.3, "max_train_epochs": 5,
                "max_train_steps": 150, "dataset.generate_reg": None, "dataset.reg_num_steps": 20,
                "dataset.masked_loss": "none"}
    sweep = entry(question=question, swept_keys=("unet_lr",))
    assert asked(sweep, ()) == {
        "trigger": "alexq", "class_noun": "man", "network_alpha": "network_dim", "text_encoder_lr": 5e-5,
        "repeats": "the number in the folder's name", "optimizer.eps": 1e-8, "loss_type": "l2", "max_train_steps": 150}
    text = diary_text(sweep, [result(1)])
    assert "network_alpha = network_dim" in text and "trigger = alexq, class_noun = man" not in text.split("swept")[1]
    used = entry(question={**question, "loss_type": "huber", "multires_noise_iterations": 6, "max_train_steps": None,
                           "steps_per_epoch": 500, "network_alpha": 4.0}, swept_keys=("dataset.generate_reg",))
    assert {"huber_c": 0.1, "multires_noise_discount": 0.3, "max_train_epochs": 5, "dataset.reg_num_steps": 20,
            "network_alpha": 4.0, "optimizer.unet_lr": 1e-4}.items() <= asked(used, ()).items()
    assert "repeats" not in asked(used, ())


def test_files_are_named_by_a_path_that_leads_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From where the sweep was started, whatever its sweep.results_dir."""
    monkeypatch.chdir(tmp_path)
    for results_dir in (Path("runs/of today"), tmp_path / "elsewhere"):
        sweep_dir = write_views(make_sweep(results_dir, num_trials=2, num_steps=6, num_sheets=0)).dir
        named = re.findall(r"`([^`]*\.safetensors)` (?:at|\(trial)", (sweep_dir / "diary.md").read_text())
        tree = report_data(read_record(sweep_dir)).tree
        named += [choice["place"] for choice in tree["answer"]["choices"]]
        named += [trial["place"] for trial in tree["trials"]]
        assert len(named) >= 4 and all(Path(place).is_file() for place in named), named


def test_the_diary_shows_the_samples_and_links_report_and_card_from_either_place(tmp_path: Path) -> None:
    sweep_dir = write_views(make_sweep(tmp_path / "results", num_trials=2, num_steps=6, real_configs=True)).dir
    for diary in (sweep_dir / "diary.md", sweep_dir.parent / "DIARY.md"):
        linked = re.findall(r"\]\(([^)]+)\)", diary.read_text())
        assert {"samples.png", "report.html", "README.md"} <= {Path(place).name for place in linked}
        assert all((diary.parent / place).exists() for place in linked), linked


def test_a_tie_says_how_far_the_first_is_ahead_and_why_another_is_not_among_them() -> None:
    first, tied = result(1, (0.40, 0.37, 0.43)), result(2, (0.31, 0.20, 0.42))
    behind = result(3, (0.32, 0.31, 0.33))
    text = answer_sentence(entry(), [first, tied, behind])
    assert text.startswith("None is good yet, and a tie: 2 trials") if "None" in text else text.startswith("A tie: 2")
    assert re.search(r"trial 1 is ahead of trial 2 by \+0\.09 \(-0\.0\d to \+0\.2\d\)", text), text
    assert re.search(r"Trial 3 is not among them.*behind by \+0\.08 \(\+0\.0\d to \+0\.1\d\), more", text), text


def test_a_winner_says_how_far_it_is_ahead_of_the_next() -> None:
    text = answer_sentence(entry(), [result(1, (0.8, 0.75, 0.85)), result(2, (0.3, 0.2, 0.4)),
                                     result(3, (0.5, 0.4, 0.6))])
    assert re.search(r"that of trial 3 by \+0\.30 \(\+0\.\d\d to \+0\.\d\d\)", text), text


def test_one_pair_has_the_interval_of_its_prompts() -> None:
    [sentence] = learned(["network_dim"], [result(1, (0.3, 0.2, 0.4)), result(2, (0.8, 0.7, 0.9))])
    assert re.search(r"usefulness \+0\.50 \(\+0\.\d\d to \+0\.\d\d over the prompts\)", sentence), sentence


def test_the_collected_diary_has_the_newest_sweep_first(tmp_path: Path) -> None:
    for name, started in (("old", "2026-11-20T00:00:00+00:00"), ("new", "2026-11-21T00:00:00+00:00")):
        sweep = entry(name=name, started=started)
        write_entry(tmp_path / name / "sweep.yaml", sweep)
        write_diary(tmp_path / name, sweep, [result(1, (0.8, 0.75, 0.85))])
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "sweep.yaml").write_text("name: [")
    text = write_collected(tmp_path).read_text()
    assert text.index("## new") < text.index("## old") < text.index("## Left out")
    assert text.count("<lora:alexq-000003:0.8>") == 2
    assert "Cost:" not in text
    assert "torn" in text.split("## Left out")[1]


def test_an_entry_is_read_back_equal(tmp_path: Path) -> None:
    written = entry(trigger=None, commit=None, note="åäö\ntwo lines", question={"unet_lr": 1e-5, "betas": [0.9, 0.99]})
    write_entry(tmp_path / "sweep.yaml", written)
    assert read_entry(tmp_path / "sweep.yaml") == written


def test_a_damaged_entry_names_file_and_key(tmp_path: Path) -> None:
    write_entry(tmp_path / "sweep.yaml", entry())
    (tmp_path / "sweep.yaml").write_text((tmp_path / "sweep.yaml").read_text().replace("hardware:", "hardwear:"))
    with pytest.raises(ConfigError, match=r'sweep\.yaml.*"hardwear".*Did you mean "hardware"'):
        read_entry(tmp_path / "sweep.yaml")


@pytest.mark.parametrize(("value", "text"), [(1e-4, "1e-4"), (0.00025, "2.5e-4"), (0.5, "0.5"), (8, "8"),
                                             (None, "null"), (True, "true"), (0.0, "0")])
def test_settings_are_written_as_people_write_them(value: object, text: str) -> None:
    assert value_text(value) == text
