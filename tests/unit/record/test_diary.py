from dataclasses import replace
from pathlib import Path

import pytest
from record_examples import entry, result

from sweep.errors import ConfigError
from sweep.record.diary import diary_text, write_collected, write_diary
from sweep.record.entry import read_entry, write_entry
from sweep.record.sentences import answer_sentence, learned, results_sentence, value_text, verdict_sentence
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


def test_trials_of_other_anchors_are_said_to_stand_apart() -> None:
    results = [result(1, (0.5, 0.4, 0.6)), result(2, (0.2, 0.1, 0.3)), result(3, (0.9, 0.8, 1.0), scoring_id="s2")]
    assert "not compared with the rest: trial 3" in diary_text(entry(), results)


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
