"""The study of the intervals on a pool that was never drawn, whose truth is planted."""

import random
from dataclasses import replace

import pytest
import torch

from studies.image_pool import NUM_SEEDS, Drawn, Pool, class_prompts, pool_prompts, shipped
from studies.intervals import Layout, coverage_of, coverages, main
from tests.unit.evaluation.evaluation_examples import FLOOR, images, probabilities, real_photos

NUM_PROMPTS = 60


@pytest.fixture(scope="module")
def pool() -> Pool:
    """Likeness, prompt and copies vary from prompt to prompt and from seed to seed."""
    prompts, rng = pool_prompts(NUM_PROMPTS), random.Random(0)
    every = replace(shipped().screen, prompts="all")
    scoring = replace(shipped(), prompts=prompts, class_prompts=class_prompts(6), screen=every, refine=every,
                      confirm=every)
    model = images("refine", lambda _: FLOOR, 0.9).images[0]

    def drawn(kind: str, index: int, mean: float, spread: float) -> Drawn:
        here = rng.gauss(mean, spread)
        rows = []
        for seed in range(NUM_SEEDS):
            hit = min(max(rng.gauss(0.8, 0.1), 0.2), 0.95)
            probes = {name: probabilities(name, prompts[index].probes.get(name), hit) for name in scoring.attributes}
            rows.append(replace(model, kind=kind, index=index, seed=seed, face=rng.gauss(here, spread), probes=probes,
                                clip=rng.gauss(0.5, 0.05), nearest=rng.gauss(1.2, 0.05)))
        return Drawn(tuple(rows), (1 - torch.eye(NUM_SEEDS)) * rng.uniform(0.8, 1.2))

    keys = [("prompt", i) for i in range(NUM_PROMPTS)] + [("class", i) for i in range(6)]
    return Pool(scoring=scoring, real=replace(real_photos(), clip=dict.fromkeys(range(NUM_PROMPTS), 0.2)),
                lora={key: drawn(*key, mean=0.6, spread=0.15) for key in keys},
                base={key: drawn(*key, mean=FLOOR, spread=0.03) for key in keys})


def test_the_intervals_of_scores_hold_a_planted_truth(pool):
    found = {row.axis: row for row in coverages(pool, Layout("small", 16, 5, 4), 150)}
    assert found["likeness"].truth == pytest.approx(0.63, abs=0.1)
    for axis in ("likeness", "adherence", "diversity", "usefulness"):
        assert 0.82 <= found[axis].covered <= 0.98, axis
        assert found[axis].num == 150 and abs(found[axis].bias) < 0.05


def test_what_a_stage_does_not_measure_is_no_row(pool):
    axes = {row.axis for row in coverages(pool, Layout("screen", 8, 0, 0), 3)}
    assert "likeness" in axes and not axes & {"diversity", "bleed"}


def test_coverage_counts_what_can_be_known():
    row = coverage_of("screen", "likeness", 0.5, [(0.5, 0.4, 0.6), (0.7, 0.6, 0.8), (None, None, None)])
    assert (row.covered, row.num, row.num_unknown) == (0.5, 2, 1)
    assert row.bias == pytest.approx(0.1) and row.half_width == pytest.approx(0.1)


def test_prompts_of_the_pool_are_distinct_and_ask_for_what_they_say():
    prompts = pool_prompts(200)
    assert len({prompt.text for prompt in prompts}) == 200 and prompts == pool_prompts(200)
    assert prompts[:20] == pool_prompts(20), "a larger pool goes on from a smaller one"
    for prompt in prompts:
        assert all(value in prompt.text for value in prompt.probes.values())
        assert not (prompt.face and "sunglasses" in prompt.text)


def test_a_pool_that_is_too_small_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--images", "20"])
    assert "--images=20: it takes at least 40" in capsys.readouterr().err
