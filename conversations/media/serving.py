"""A file as an HTTP answer. The caller has asked whether whoever wants it may see it.

Nothing active is shown: only the types in ``types.SHOWN``, as their content says, go into a page.
Anything else is for download, under a type that no browser runs.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterator, Mapping
from typing import Any

from django.core.files import File
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.http import content_disposition_header

from conversations.media import files, types
from conversations.media.files import Kept

# Most bytes of an answer to a request for a part: players ask for the next part by themselves. Larger:
# more of it is read in vain when they seek. Smaller: more requests.
PART_BYTES = 2 << 20
# Bytes of a chunk. A server keeps a few for a client that does not read. Larger: more memory for each.
# Smaller: more steps for a large file.
CHUNK = 32 * 1024
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, max-age=600",
    "Accept-Ranges": "bytes",
}


class FileAnswer(StreamingHttpResponse):
    """``size`` bytes of a file from where it stands, read chunk by chunk as the client takes them."""

    def __init__(self, file: File[Any], size: int, **about: Any) -> None:
        super().__init__(_chunks(file, size), **about)
        self.size, self.file = size, file
        self.headers["Content-Length"] = str(size)

    def close(self) -> None:
        try:
            self.file.close()
        finally:
            super().close()


def respond(request: HttpRequest, kept: Kept, content_type: str, told: Mapping[str, Any]) -> HttpResponseBase:
    """Answer with a file, or with the part of it that ``Range`` asks for. ``told``: its attachment."""
    shown = content_type in types.SHOWN and "download" not in request.GET
    named = re.sub(r"[\x00-\x1f\x7f]", " ", str(told.get("name") or "")).strip()  # a header has one line
    name = named or f"{told.get('kind', 'file')}{mimetypes.guess_extension(content_type) or ''}"
    headers = {**HEADERS, "Content-Disposition": content_disposition_header(not shown, name) or "attachment"}
    try:
        file = files.open_kept(kept)
        size = file.size
    except FileNotFoundError:
        return HttpResponse("The storage does not have the file.", status=404, content_type="text/plain")
    part = _part(request.headers.get("Range", ""), size)
    start, end = part or (0, size)
    if part and start == end:
        file.close()
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"})
    if part:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    file.seek(start)
    about = {"status": 206 if part else 200, "content_type": content_type if shown else types.UNKNOWN}
    return FileAnswer(file, end - start, headers=headers, **about)


def _chunks(file: File[Any], left: int) -> Iterator[bytes]:
    while chunk := file.read(min(left, CHUNK)):
        left -= len(chunk)
        yield chunk


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
