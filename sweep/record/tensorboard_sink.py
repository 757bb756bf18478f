"""TensorBoard as a sink of the exporter: event files in results/<sweep>/tensorboard/<trial>, without torch."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import ConfigError
from sweep.record.entry import SweepEntry
from sweep.record.facts import Record
from sweep.record.figures import FIGURES
from sweep.record.payload import Speed, payload, summary_of
from sweep.record.sentences import value_text
from sweep.trial import Trial, TrialFolder, TrialResult

if TYPE_CHECKING:
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

FOLDER = "tensorboard"


class TensorboardSink:
    """See `sweep.record.exporter.Sink`."""

    name = "tensorboard"
    patience_s = 60.0

    def __init__(self, entry: SweepEntry, sweep_dir: Path) -> None:
        try:
            import tensorboard.summary  # noqa: F401  # said before anything is trained
        except ImportError as error:
            raise ConfigError("tracker=tensorboard needs the package tensorboard: pip install tensorboard") from error
        self._entry, self._dir = entry, sweep_dir.resolve() / FOLDER

    def shown_path(self, trial: Trial) -> Path:
        return self._dir / self._name(trial) / "shown.jsonl"

    def open(self, trial: Trial) -> TensorboardRun:
        return TensorboardRun(self._dir / self._name(trial), trial)

    def conclude(self, record: Record) -> None:
        """Its parallel coordinates (the HParams tab) are made of the trials' own runs."""

    def how_to_send(self) -> str:
        return "the same command shows the rest"

    def _name(self, trial: Trial) -> str:
        return f"{trial.number:03d}-{trial.train_id}"


class TensorboardRun:
    """See `sweep.record.exporter.Run`."""

    num_there: int | None = None  # event files can't tell without being read

    def __init__(self, folder: Path, trial: Trial) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._writer: EventFileWriter = EventFileWriter(str(folder))
        self._speed = Speed()
        self._settings(trial)

    def log(self, row: Mapping[str, Any], folder: TrialFolder) -> None:
        step = int(row["step"])
        for name, value in (_apart(row, payload(row)) | self._speed.of(row)).items():
            if isinstance(value, (int, float)) and not isinstance(value, bool) and name != "step":
                self._scalar(name, float(value), step)
        if row["kind"] == "score":
            score = row["score"]
            [sheet] = _apart(row, {f"{score['stage']}/sheet": None})
            self._image(sheet, folder.images / f"{score['score_id']}.png", step)
        if row["kind"] != "train":
            self._writer.flush()  # up to a checkpoint and its figures nothing waits in memory, for a kill or a viewer

    def log_end(self, result: TrialResult, folder: TrialFolder) -> None:
        """The answer's figures as `answer/...`, which the HParams tab shows beside the settings."""
        ending = summary_of(result)
        for name in FIGURES:
            if isinstance(ending.get(name), float):
                self._scalar(f"answer/{name}", ending[name], result.step)
        self._text("answer/verdict", f"{ending.get('verdict', result.status)} {ending.get('file', '')} "
                                     f"{result.reason}".strip(), result.step)

    def summarise(self, result: TrialResult, sweeps: list[str]) -> None:
        """All is in the rows."""

    def finish(self) -> None:
        self._writer.close()

    def _settings(self, trial: Trial) -> None:
        """The swept settings for the HParams tab. Made by hand: tensorboard's own function for it needs TensorFlow."""
        from google.protobuf import struct_pb2
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

        info = SessionStartInfo(group_name=trial.train_id, start_time_secs=time.time())
        for key, value in trial.settings.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                info.hparams[key].CopyFrom(struct_pb2.Value(number_value=value))
            else:
                info.hparams[key].CopyFrom(struct_pb2.Value(string_value=value_text(value)))
        content = HParamsPluginData(version=0, session_start_info=info).SerializeToString()
        plugin = SummaryMetadata.PluginData(plugin_name="hparams", content=content)
        self._add(Summary(value=[Summary.Value(tag="_hparams_/session_start_info",
                                               metadata=SummaryMetadata(plugin_data=plugin))]), 0)

    def _scalar(self, name: str, value: float, step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._add(Summary(value=[Summary.Value(tag=name, simple_value=value)]), step)

    def _image(self, name: str, path: Path, step: int) -> None:
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary

        if not path.exists():
            return
        with Image.open(path) as image:
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, "PNG")
            shown = Summary.Image(height=image.height, width=image.width, colorspace=3,
                                  encoded_image_string=buffer.getvalue())
        self._add(Summary(value=[Summary.Value(tag=name, image=shown)]), step)

    def _text(self, name: str, text: str, step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING

        tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()],
                             tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]))
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        self._add(Summary(value=[Summary.Value(tag=name, metadata=metadata, tensor=tensor)]), step)

    def _add(self, summary: Any, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))


def _apart(row: Mapping[str, Any], shown: Mapping[str, Any]) -> dict[str, Any]:
    """Scores of one step at several strengths would be one zigzag: their names say the strength, "refine/likeness/at
    0.8". A screen has one strength."""
    if row["kind"] != "score" or row["score"]["stage"] == "screen":
        return dict(shown)
    return {f"{name}/at {row['score']['strength']:g}": value for name, value in shown.items()}
