import importlib.util
import subprocess
import sys

import pytest


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_libraries_that_import_torchvision_load() -> None:
    code = ("from sweep.model.torchvision_ops import declare_missing_operators as d\n"
            "d(); d()\n"
            "import torchvision, lpips\nfrom transformers import CLIPModel")
    done = run(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed")
def test_names_are_declared_only_where_the_real_operators_are_missing() -> None:
    """Whatever torchvision this machine has: either it imports as it is and nothing is declared, or it does not and the
    names are."""
    works_alone = run("import torchvision").returncode == 0
    declared = run("import sys\nfrom sweep.model.torchvision_ops import declare_missing_operators\n"
                   "sys.exit(0 if declare_missing_operators() else 1)").returncode == 0
    assert declared != works_alone
