"""report.html: one self-contained page of a sweep, which works offline and from disk.

The page's parts stand in page/. All that comes from outside (captions, file names, notes) reaches it as JSON that holds
no "<" and is put into the document as text; a content security policy forbids every request.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Sequence
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from sweep.errors import ConfigError
from sweep.files import write_bytes
from sweep.record.facts import Record
from sweep.record.report_data import ReportData, report_data

REPORT = "report.html"
_SCRIPTS = ("dom.js", "table.js", "pictures.js", "plots.js", "main.js")


def write_report(record: Record, lessons: Sequence[str] | None = None) -> Path:
    """Write `results/<sweep>/report.html` atomically and return its path. lessons: None = from pairs alone."""
    path = record.dir / REPORT
    # Piece by piece: as one text, whose widest character counts for all, the page would take many times its size.
    write_bytes(path, b"".join(piece.encode() for piece in _pieces(report_data(record, lessons=lessons), live=False)))
    return path


def report_html(data: ReportData, *, live: bool = False) -> str:
    """The whole page. live: it asks the server that it came from whether there is a newer one."""
    return "".join(_pieces(data, live=live))


def _pieces(data: ReportData, *, live: bool) -> Iterator[str]:
    connect = "'self'" if live else "'none'"
    pictures = "".join(f'<script type="text/plain" id="picture-{name}">{content}</script>\n'
                       for name, content in data.pictures.items())
    parts = {
        "TITLE": html.escape(str(data.tree["name"])), "CONNECT": connect, "STYLE": _part("style.css"),
        "DATA": script_json({**data.tree, "live": live}), "PICTURES": pictures, "PLOTLY": _plotly(),
        "SCRIPT": "\n".join(_part(name) for name in _SCRIPTS),
    }
    page = _part("page.html")
    pieces = page.split("{{")  # one pass, so that nothing inside a part is taken for another part's place
    yield pieces[0]
    for piece in pieces[1:]:
        name, _, after = piece.partition("}}")
        yield from (parts[name], after)


def script_json(tree: object) -> str:
    """JSON that can stand inside a <script>: without "<", and so without the end of one."""
    return json.dumps(tree, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c").replace("\u2028", "\\u2028")


def _part(name: str) -> str:
    return resources.files("sweep.record").joinpath("page", name).read_text(encoding="utf-8")


def _plotly() -> str:
    """plotly.js as the Python package brings it, which is found and not imported: that would take longer."""
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        raise ConfigError("The report's plots need the package plotly: pip install plotly")
    return Path(spec.origin).with_name("package_data").joinpath("plotly.min.js").read_text(encoding="utf-8")
