"""What a file is, by its content: real beginnings of what people send."""

from __future__ import annotations

import io

import pytest

from conversations.media import types
from tests.kit.stored_files import OGG, PNG

FOUND = [
    (PNG, "image/png"),
    (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(64), "image/jpeg"),
    (b"\xff\xd8\xff\xe1\x00\x10Exif\x00" + bytes(64), "image/jpeg"),
    (b"GIF89a" + bytes(64), "image/gif"),
    (b"RIFF\x24\x00\x00\x00WEBPVP8 " + bytes(64), "image/webp"),
    (b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(64), "audio/wav"),
    (OGG, "audio/ogg"),
    (b"ID3\x03\x00\x00\x00\x00\x0fvTPE1" + bytes(64), "audio/mpeg"),
    (b"ID3\x04\x00\x00\x00\x01\x0fvTPE1" + bytes(64), "audio/mpeg"),
    (b"\xff\xfb\x90\x64" + bytes(64), "audio/mpeg"),
    (b"\x00\x00\x00\x20ftypM4A \x00\x00\x00\x00" + bytes(64), "audio/mp4"),
    (b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00" + bytes(64), "video/mp4"),
    (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00" + bytes(64), "video/mp4"),
    (b"\x00\x00\x00\x18ftypiso5\x00\x00\x00\x00" + bytes(64), "video/mp4"),
    (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01" + bytes(64), "video/webm"),
    (b"%PDF-1.7\n" + bytes(64), "application/pdf"),
    (b" \n<!DOCTYPE html><p>", "text/html"),
    (b"\xef\xbb\xbf<svg xmlns=''>", "text/html"),
    (b"Dear all, this is only text.", types.UNKNOWN),
    (b"", types.UNKNOWN),
]


@pytest.mark.parametrize(("content", "found"), FOUND, ids=[found for _, found in FOUND])
def test_content_tells_the_type(content: bytes, found: str) -> None:
    assert types.find(io.BytesIO(content)) == found


PROBLEMS = [
    (b"MZ\x90\x00", "file", "it is a program"),
    (b"\x7fELF\x02", "file", "it is a program"),
    (b"#!/bin/sh\n", "image", "it is a program"),
    (b"MZ is my street", "file", ""),
    (b"#!AMR\n" + bytes(40), "voice", ""),
    (b"\x1f\x8b\x08\x00" + bytes(40), "sticker", ""),
    (b"%PDF-1.7\n" + bytes(64), "image", "it was sent as image, and is application/pdf"),
    (b"%PDF-1.7\n" + bytes(64), "file", ""),
    (b"PK\x03\x04" + bytes(64), "file", ""),
]


@pytest.mark.parametrize(("content", "kind", "problem"), PROBLEMS)
def test_what_is_not_kept(content: bytes, kind: str, problem: str) -> None:
    file = io.BytesIO(content)
    assert types.problem(file, kind, types.find(file)) == problem
