"""HTML that is safe to show: all text is escaped, and no element is active but links. Pure."""

from __future__ import annotations

import html
import re

from channels_ingest.formats.markdown.runs import Kind, Mark, Run, Runs, weave

TAGS = {
    Kind.QUOTE: ("<blockquote>", "</blockquote>"),
    Kind.PRE: ("<pre><code>", "</code></pre>"),
    Kind.STRIKE: ("<s>", "</s>"),
    Kind.BOLD: ("<b>", "</b>"),
    Kind.ITALIC: ("<i>", "</i>"),
    Kind.CODE: ("<code>", "</code>"),
}
# Line breaks beside a block, which begins a line by itself.
BREAKS = re.compile(r"(?:<br>)*(</?(?:pre|blockquote)>)(?:<br>)*")


def render(runs: Runs) -> str:
    """Return HTML: text, ``<br>``, the elements above, and links to http, https and mailto."""
    return BREAKS.sub(r"\1", weave(runs, _tags, _text))


def _tags(mark: Mark) -> tuple[str, str]:
    if mark.kind is not Kind.LINK:
        return TAGS[mark.kind]
    return f'<a href="{html.escape(mark.value)}" target="_blank" rel="noopener noreferrer">', "</a>"


def _text(run: Run) -> str:
    text = html.escape(run.text)
    return text if run.has(Kind.PRE) else text.replace("\n", "<br>")
