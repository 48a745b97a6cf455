"""What a file is, by its content alone: names and types that senders state are not believed."""

from __future__ import annotations

from typing import BinaryIO

import puremagic

UNKNOWN = "application/octet-stream"
# Types that a browser shows in a page of ours, and as what. None of them can hold a script that runs.
# Another type is only offered for download.
SHOWN = {
    "image/jpeg": "image",
    "image/png": "image",
    "image/gif": "image",
    "image/webp": "image",
    "audio/mpeg": "audio",
    "audio/mp4": "audio",
    "audio/aac": "audio",
    "audio/ogg": "audio",
    "audio/wav": "audio",
    "video/mp4": "video",
    "video/webm": "video",
}
# Other names that the library has for some of them.
SAME = {
    "audio/mp3": "audio/mpeg",
    "audio/x-m4a": "audio/mp4",
    "audio/m4a": "audio/mp4",
    "audio/opus": "audio/ogg",
    "application/ogg": "audio/ogg",
    "audio/wave": "audio/wav",
    "audio/x-wav": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "image/jpg": "image/jpeg",
}
# What begins like this runs on somebody's machine: Linux, macOS, Java, scripts; Windows' ``MZ`` is a word, too.
PROGRAMS = (b"\x7fELF", b"\xca\xfe\xba\xbe", b"\xfe\xed\xfa", b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"#!/")
MP4 = (b"ftypiso", b"ftypmp4", b"ftypavc")  # at byte 4; the library does not know all of them
MARKUP = (b"<!doctype", b"<html", b"<script", b"<?xml", b"<svg")
# How sure a match must be, for a type that is not shown: 0.1 for each byte that is alike. Larger: fewer files
# that are something else are recognised. Smaller: some that are what they should be are refused.
SURE = 0.4
# Kinds of attachments whose content must be what the kind says, as far as it can be recognised.
MEDIA = frozenset({"image", "audio", "voice", "video", "sticker"})
# What platforms call a picture, a sound or a sticker, beside the types of that name.
ALSO_MEDIA = frozenset({"application/gzip", "application/x-gzip", "application/json"})  # animated stickers


def find(file: BinaryIO) -> str:
    """Return the type of a file's content; ``UNKNOWN`` if none is recognised."""
    file.seek(0)
    head = file.read(256)
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(MARKUP):
        return "text/html"
    file.seek(0)
    try:
        matches = puremagic.magic_stream(file)  # the surest first
    except (puremagic.PureError, ValueError):  # nothing matches; an empty file
        matches = []
    named = [(SAME.get(match.mime_type, match.mime_type), match.confidence) for match in matches]
    found = [each for each, confidence in named if each in SHOWN or (each and confidence >= SURE)]
    if not found:
        return "video/mp4" if head[4:11] in MP4 else UNKNOWN
    alike = (each for each in found if each in SHOWN and each.split("/")[0] == found[0].split("/")[0])
    return next(alike, found[0])  # many MP3s are rarer types of audio, too


def problem(file: BinaryIO, kind: str, found: str) -> str:
    """Return why a file of this kind of attachment is not kept, in words; '' if it is."""
    file.seek(0)
    head = file.read(64)
    if head.startswith(PROGRAMS) or (head.startswith(b"MZ") and b"\0" in head):
        return "it is a program"
    is_media = found.split("/")[0] in ("image", "audio", "video") or found in ALSO_MEDIA
    if kind in MEDIA and found != UNKNOWN and not is_media:
        return f"it was sent as {kind}, and is {found}"
    return ""
