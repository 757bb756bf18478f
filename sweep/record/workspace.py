"""A saved W&B workspace for a sweep: parallel coordinates, the trade-off, curves, samples. Needs wandb-workspaces."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from sweep.record.entry import SweepEntry
from sweep.record.figures import FIGURES
from sweep.record.payload import sweep_tag

_MAX_RUNS = 100  # in one panel; W&B's own default of 10 would leave most of a sweep out

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace


def save_workspace(entity: str, project: str, entry: SweepEntry) -> str:
    """Save it and return its address; empty without the package."""
    if importlib.util.find_spec("wandb_workspaces") is None:
        return ""
    workspace = build_workspace(entity, project, entry)
    workspace.save()
    return str(workspace.url)


def build_workspace(entity: str, project: str, entry: SweepEntry) -> Workspace:
    """Only the sweep's own trials are shown, by its tag: a trial of several sweeps is in the group of the last one."""
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as workspaces

    column = panels.ParallelCoordinatesPlotColumn
    columns = [*(column(metric=panels.Config(key), display_name=key) for key in entry.swept_keys),
               *(column(metric=name, display_name=name) for name in FIGURES)]
    sections = [
        workspaces.Section(name="The answer", is_open=True, panels=[
            panels.ParallelCoordinatesPlot(title="settings and scores", columns=columns),
            panels.ScatterPlot(title="likeness against adherence", x="adherence", y="likeness", z="memorisation"),
            panels.ParameterImportancePlot(with_respect_to="usefulness")]),
        workspaces.Section(name="Over steps", is_open=True, panels=[
            panels.LinePlot(title=title, x="step", y=[metric]) for title, metric in (
                ("usefulness", "screen/usefulness"), ("likeness", "screen/likeness"),
                ("adherence", "screen/adherence"), ("validation loss", "validation/loss"), ("loss", "train/loss"),
                ("rate", "train/unet_lr"), ("gradient norm", "train/grad_norm"), ("speed", "train/steps_per_s"),
                ("memory in GiB", "train/memory_gib"))]),
        workspaces.Section(name="By strength", is_open=True, panels=[
            panels.LinePlot(title=name, x="refine/strength", y=[f"refine/{name}"])
            for name in ("usefulness", "likeness", "adherence")]),
        workspaces.Section(name="Samples", is_open=True, panels=[
            panels.MediaBrowser(title="checkpoints", media_keys=["screen/sheet", "refine/sheet", "confirm/sheet"])]),
    ]
    settings = workspaces.RunsetSettings(filters=[
        workspaces.Tags().isin([sweep_tag(entry.name)]), workspaces.Metric("JobType") == "trial"])
    return workspaces.Workspace(entity=entity, project=project, name=f"LoRA Sweep: {entry.name}", sections=sections,
                                runset_settings=settings,
                                settings=workspaces.WorkspaceSettings(x_axis="step", max_runs=_MAX_RUNS))
