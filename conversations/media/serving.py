"""A file as an HTTP answer. The caller has asked whether whoever wants it may see it.

Nothing active is shown: only the types in ``types.SHOWN``, as their content says, go into a page.
Anything else is for download, under a type that no browser runs.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.http import content_disposition_header

from conversations.media import files, types
from conversations.media.files import Kept

# Most bytes of an answer to a request for a part: players ask for the next part by themselves. Larger:
# more memory for each. Smaller: more requests.
PART_BYTES = 2 << 20
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, max-age=600",
    "Accept-Ranges": "bytes",
}


def respond(request: HttpRequest, kept: Kept, content_type: str, told: Mapping[str, Any]) -> HttpResponse:
    """Answer with a file, or with the part of it that ``Range`` asks for. ``told``: its attachment."""
    shown = content_type in types.SHOWN and "download" not in request.GET
    named = re.sub(r"[\x00-\x1f\x7f]", " ", str(told.get("name") or "")).strip()  # a header has one line
    name = named or f"{told.get('kind', 'file')}{mimetypes.guess_extension(content_type) or ''}"
    headers = {**HEADERS, "Content-Disposition": content_disposition_header(not shown, name) or "attachment"}
    try:
        with files.open_kept(kept) as file:
            size = file.size
            part = _part(request.headers.get("Range", ""), size)
            start, end = part or (0, size)
            file.seek(start)
            content = file.read(end - start)
    except FileNotFoundError:
        return HttpResponse("The storage does not have the file.", status=404, content_type="text/plain")
    if part and not content:
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"})
    if part:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    content_type = content_type if shown else types.UNKNOWN
    return HttpResponse(content, status=206 if part else 200, content_type=content_type, headers=headers)


def _part(header: str, size: int) -> tuple[int, int] | None:
    """Return the first byte of a part and the one behind it; None for the whole file.

    Both are the same if the file has no such part.
    """
    found = RANGE.fullmatch(header)
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last) + 1, size) if first and last else size
    return start, max(start, min(end, start + PART_BYTES))
