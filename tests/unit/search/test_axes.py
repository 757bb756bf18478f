"""Our cells against those of Hydra's BasicSweeper: the same overrides, in the same order, of the same content; and the
documented difference, globs."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from sweep.errors import ConfigError
from sweep.search.axes import read_axes
from sweep.search.composer import Composer
from sweep.search.grid import override_lists

FILES = {
    "config.yaml": "defaults:\n  - _self_\n  - optimizer: adamw\n  - db: null\n  - experiment: null\n"
                   "  - base: null\n"
                   "dim: 8\nalpha: ${dim}\nrate: ${optimizer.rate}\ntext: hello\nflag: false\nlist: [1, 2]\n"
                   "tree: {x: 1, y: {z: 2}}\nfree: {}\nnothing: null\n",
    "optimizer/adamw.yaml": "name: adamw\nrate: 0.1\n",
    "optimizer/prodigy.yaml": "name: prodigy\nrate: 1.0\n",
    "optimizer/prodigy_plus.yaml": "name: prodigy_plus\nrate: 1.0\n",
    "db/my.yaml": "kind: my\n",
    "db/sub/one.yaml": "kind: one\n",
    "db/sub/two.yaml": "kind: two\n",
    "experiment/a.yaml": "# @package _global_\ndim: 64\n",
    "experiment/ab.yaml": "# @package _global_\ndefaults:\n  - override /optimizer: prodigy\nalpha: 3\n",
    "experiment/alex/one.yaml": "# @package _global_\ndim: 1\n",
    "experiment/alex/two.yaml": "# @package _global_\ndim: 2\n",
    "base/sd2.yaml": "kind: 2\n",
    "base/sd15.yaml": "kind: 15\n",
    "base/sd1.yaml": "kind: 1\n",
}

LINES = [
    ["dim=1"],
    ["dim=1,2,3"],
    ["dim=1,2", "text=a,b"],
    ["text=a,b", "dim=1,2"],
    ["dim=1,2", "flag=true", "text=a,b"],
    ["dim=choice(4,8)"],
    ["dim=choice(4)"],
    ["dim=range(1,5)"],
    ["dim=range(5)"],
    ["dim=range(1,10,3)"],
    ["dim=range(10,1,-3)"],
    ["rate=range(0,1,0.25)"],
    ["rate=range(0.1,0.4,0.1)"],
    ["optimizer=adamw,prodigy"],
    ["optimizer=glob(*)"],
    ["optimizer=glob(prodigy*)"],
    ["optimizer=glob(*,exclude=prodigy_*)"],
    ["optimizer=glob([adamw,prod*],exclude=[*_plus])"],
    ["optimizer=adamw,prodigy", "rate=0.5"],
    ["optimizer=adamw,prodigy", "optimizer.rate=0.3,0.4"],
    ["experiment=glob(*)", "dim=3,4"],
    ["experiment=a,alex/one"],
    ["dim=shuffle(1,2,3,4)"],
    ["dim=shuffle(range(1,9))"],
    ["optimizer=shuffle(adamw,prodigy)"],
    ["dim=sort(3,1,2)"],
    ["dim=sort(3,1,2,reverse=true)"],
    ["dim=tag(small,choice(1,2))"],
    ["dim=tag(one,two,range(1,4))"],
    ["dim=int(1.0,2.0)"],
    ["text='a,b','c d'"],
    ['text="it\'s, quoted",plain'],
    [r"text='back\\slash','q\'uote'"],
    ["text=a b,c:d"],
    ["text=null,'null',true,'1'"],
    ["list=[1],[2,3]", "dim=1,2"],
    ["tree={x:5},{y:{z:9}}"],
    ["tree.y.z=1,2", "tree.x=7,8"],
    ["db=my,sub/one", "dim=1,2"],
    ["+free.new=1,2"],
    ["++free.new=1,2", "++dim=4,5"],
    ["~flag", "dim=1,2"],
    ["optimizer=adamw", "dim=choice(1,2)", "tree.x=range(3)"],
    ["~tree.x", "tree.y.z=1,2"],
    ["~optimizer", "dim=1,2", "rate=1"],
    ["dim=1,2", "text=x", "dim=3,4"],
    ["dim=1", "dim=2,3"],
    ["dim=2,3", "dim=1"],
    ["alpha=${tree.x},7", "tree.x=5,6"],
    ["tree.y.z=1,2", "++tree.y={z:5}"],
    ["rate=1e-4,1e-3", "nothing=null,5"],
    ["+optimizer@second=adamw,prodigy", "dim=1,2"],
    ["+db@free=my,sub/one", "optimizer=prodigy,adamw"],
    ["experiment=a,ab", "optimizer=adamw,prodigy_plus", "dim=1,2"],
    ["text=choice('x,y',\"z w\")", "dim=float(1,2)"],
    ["text=str(1,2)", "flag=bool(0,1)"],
    ["dim=shuffle(sort(3,1,2))", "tree={x:1,y:{z:3}}"],
]


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConfigLoader]:
    folder = tmp_path_factory.mktemp("conf")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    with initialize_config_dir(str(folder), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


@pytest.mark.parametrize("lines", LINES, ids=" ".join)
def test_cells_equal_basic_sweepers(loader: ConfigLoader, lines: list[str]) -> None:
    random.seed(1)  # Hydra's shuffle has no seed of its own
    [theirs] = BasicSweeper.split_arguments(OverridesParser.create(loader).parse_overrides(lines), None)
    random.seed(1)
    axes = read_axes(lines, loader)
    assert override_lists(axes) == theirs
    fixed = [line for axis in axes if not axis.is_swept for line in axis.lines]
    composer = Composer(lambda overrides: compose("config", overrides=overrides), loader, fixed)
    for overrides in theirs:
        whole = OmegaConf.to_container(compose("config", overrides=overrides), resolve=True)
        assert composer.tree(overrides) == whole


def test_a_scalar_costs_no_compose(loader: ConfigLoader) -> None:
    composed = []

    def counted(overrides: list[str]):
        composed.append(overrides)
        return compose("config", overrides=overrides)

    composer = Composer(counted, loader)
    lines = override_lists(read_axes(["dim=range(20)", "optimizer=adamw,prodigy", "tree.x=1,2"], loader))
    trees = [composer.tree(cell) for cell in lines]
    assert len(trees) == 80 and len(composed) == 2
    assert (trees[-1]["alpha"], trees[-1]["rate"]) == (19, 1.0)
    assert (trees[0]["alpha"], trees[0]["tree"]["x"]) == (0, 1)


def test_a_glob_looks_into_folders(loader: ConfigLoader) -> None:
    """A documented difference: BasicSweeper finds nothing there and runs nothing."""
    [axis] = read_axes(["experiment=glob(alex/*)"], loader)
    assert axis.lines == ("experiment=alex/one", "experiment=alex/two")
    with pytest.raises(ConfigError, match=r"glob\(alix/\*\) matches nothing. Known: a, ab, alex/one, alex/two"):
        read_axes(["experiment=glob(alix/*)"], loader)


@pytest.mark.parametrize("glob", ["base=glob(*)", "base=glob(sd*,exclude=sd1)"])
def test_a_globs_numbered_names_come_by_their_numbers(loader: ConfigLoader, glob: str) -> None:
    """The other documented difference: BasicSweeper sorts them as words. The cells are the same ones."""
    lines = [glob, "dim=1,2"]
    [theirs] = BasicSweeper.split_arguments(OverridesParser.create(loader).parse_overrides(lines), None)
    ours = override_lists(read_axes(lines, loader))
    assert ours != theirs and sorted(ours) == sorted(theirs)
    found = list(dict.fromkeys(base for base, _ in ours))
    assert found == [name for name in ("base=sd1", "base=sd2", "base=sd15") if name in found] and len(found) > 1


@pytest.mark.parametrize(("text", "low", "high", "is_whole", "is_log"), [
    ("interval(1,8)", 1, 8, False, False),
    ("interval(0.5,8)", 0.5, 8, False, False),
    ("tag(log,interval(1e-5,1e-3))", 1e-5, 1e-3, False, True),
    ("tag(log,int(interval(1,128)))", 1, 128, True, True),
    ("range(1,5)", 1, 4, True, False),
])
def test_spans(loader: ConfigLoader, text: str, low: float, high: float, is_whole: bool, is_log: bool) -> None:
    [axis] = read_axes([f"dim={text}"], loader)
    assert axis.span is not None
    assert (axis.span.low, axis.span.high, axis.span.is_whole, axis.span.is_log) == (low, high, is_whole, is_log)


def test_an_empty_interval_is_refused(loader: ConfigLoader) -> None:
    with pytest.raises(ConfigError, match="must be the smaller one"):
        read_axes(["dim=interval(3,2)"], loader)
