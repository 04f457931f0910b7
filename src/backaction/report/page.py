"""The page that reports share: style, escaped text, a folder that can be written."""

from __future__ import annotations

import base64
import html
import io
import os
from pathlib import Path
from typing import Any

from backaction.errors import InputError


def writable(folder: str | Path) -> Path:
    """The folder of a report, made if needed; raises InputError if it cannot be made or written."""
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError:
        raise InputError(f"{target}: cannot make this folder") from None
    if not os.access(target, os.W_OK):
        raise InputError(f"{target}: this folder cannot be written")
    return target


def _save(figure: Any, path: Path) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    path.write_bytes(buffer.getvalue())
    return base64.b64encode(buffer.getvalue()).decode("ascii")


# -- the page ---------------------------------------------------------------------------------------------------------

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem;border-bottom:1px solid #d0d7de;padding-bottom:.2rem}
.verdict{padding:.8rem 1rem;border-left:6px solid #57606a;background:#f6f8fa;font-size:1.1rem}
.yes{border-color:#1a7f37}.no{border-color:#9a6700}.withheld{border-color:#cf222e}
table{border-collapse:collapse;width:100%;font-size:.9rem}
td,th{text-align:left;padding:.25rem .6rem;border-bottom:1px solid #eaeef2}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}img{max-width:100%}.bad{color:#cf222e;font-weight:600}.good{color:#1a7f37}
footer{color:#57606a;font-size:.85rem;margin-top:2rem}
"""


def escaped(text: Any) -> str:
    """Text for HTML."""
    return html.escape(str(text))
