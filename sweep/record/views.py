"""All views of one sweep, written together from the record: table, diary, report, the collected diary."""

from __future__ import annotations

from pathlib import Path

from sweep.record.card import PUBLISH, write_publish
from sweep.record.diary import write_collected, write_diary
from sweep.record.facts import Record, read_record
from sweep.record.importance import importance_lines
from sweep.record.report import REPORT, write_report
from sweep.record.sentences import lessons_of
from sweep.record.sweep_log import note
from sweep.record.table import write_csv


def write_views(sweep_dir: Path) -> Record:
    """Write them anew from the sweep's folder alone, and return what was read.

    A report or a publish folder that can't be written is said in the sweep's log and fails nothing: the record stands
    without it.
    """
    record = read_record(sweep_dir)
    write_csv(sweep_dir / "trials.csv", record.entry, record.results)
    lessons = [*importance_lines(record.entry.swept_keys, record.results),
               *lessons_of(record.entry, record.results)]
    for name, write in ((REPORT, lambda: write_report(record, lessons)), (PUBLISH, lambda: write_publish(record))):
        try:
            write()
        except Exception as error:  # a picture or a row of a kind that the view does not know, a full disk
            note(sweep_dir, f"{name} could not be written, {type(error).__name__}: {error}")
    write_diary(sweep_dir, record.entry, record.results, lessons)  # it links the others
    write_collected(record.results_dir)
    return record
