"""Docstrings as they were written: angle brackets and conjugation stars survive Markdown."""

import re

try:
    import griffe
except ImportError:  # the hooks use `literal` alone
    griffe = None

_OPEN = re.compile(r"(?:^|[\s(\[{—–-])$")


def literal(text: str) -> str:
    """Markdown in which `<x>` and `a*b` outside of code are themselves.

    Indented blocks, fences and back-ticked words are code already. A star is emphasis only where one that follows a space opens
    it; one behind a letter, a digit or a bracket that closes nothing is a conjugate or a product.
    """
    out, fenced, section = [], False, False
    for line in text.split("\n"):
        section = section or bool(
            re.fullmatch(r"-{3,}", line)
        )  # what follows is a description, indented by four already
        if line.lstrip().startswith("```"):
            fenced = not fenced
        if fenced or line.startswith(" " * (8 if section else 4)) or line.lstrip().startswith("```"):
            out.append(line)
            continue
        parts = re.split(r"(`[^`]*`)", line)
        out.append("".join(p if p.startswith("`") else _plain(p) for p in parts))
    return "\n".join(out)


def _plain(text: str) -> str:
    text = re.sub(r"<(?!(?:/?(?:br|sub|sup|img|a|b|i|p|div|span|table|tr|td|th)\b|!--))", "&lt;", text)
    done, opened = "", False
    for i, c in enumerate(text):
        if c != "*" or text[i - 1 : i] in ("*", "\\") or text[i + 1 : i + 2] == "*" or (i == 0 and text[1:2] == " "):
            done += c
            continue
        if not opened and _OPEN.search(text[:i]) and text[i + 1 : i + 2].strip() and "*" in text[i + 1 :]:
            opened = True
            done += c
        elif opened:
            opened = False
            done += c
        else:
            done += "\\*"
    return done


if griffe is not None:

    class Literal(griffe.Extension):
        """Applies `literal` to every docstring."""

        def on_object(self, *, obj: "griffe.Object", **_: object) -> None:
            """A class, a function, a module or an attribute."""
            if obj.docstring is not None:
                obj.docstring.value = literal(obj.docstring.value)
