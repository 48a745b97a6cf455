"""Addresses of files for those who have no account: the chat page of a visitor, the receiver of a generic channel.

An address is signed for one channel and one file, and lives for a day. A timeline or a reply that is
read again has a new one.
"""

from __future__ import annotations

from urllib.parse import urlencode

from django.core import signing
from django.http import Http404, HttpRequest, HttpResponseBase
from django.urls import reverse
from django.views.decorators.http import require_safe

from conversations import registry, runtime
from conversations.contracts import ChannelConfig
from conversations.media import files, serving
from conversations.media.files import Kept

# Life of an address in seconds. Larger: who sees one can use it for longer. Smaller: pages that stay open
# lose their pictures.
LINK_SECONDS = 24 * 3600
FIND = """SELECT m.id, m.channel_id, m.attempts, m.content_type, m.reference FROM media m
            JOIN channel c ON c.id = m.channel_id WHERE m.id = %s AND c.tenant_id = %s AND m.status = 'stored'"""


def address(channel: ChannelConfig, file: str) -> str:
    """Return the address of a file, without the host."""
    query = urlencode({"file": file, "sign": _signer(channel).sign(file)})
    return f"{reverse('file', args=[channel.public_id])}?{query}"


@require_safe
def give(request: HttpRequest, public_id: str) -> HttpResponseBase:
    """Give a file to whoever has its address."""
    channel, file = registry.channel_by_public_id(None, public_id), request.GET.get("file", "")
    if channel is None or not files.read_id(file) or not _is_signed(channel, file, request.GET.get("sign", "")):
        raise Http404("no such file")
    rows = runtime.read(FIND, (file, channel.tenant_id))
    if not rows:
        raise Http404("no such file")
    *kept, content_type, told = rows[0]
    return serving.respond(request, Kept(*kept), content_type, told)


def _is_signed(channel: ChannelConfig, file: str, given: str) -> bool:
    try:
        return _signer(channel).unsign(given, max_age=LINK_SECONDS) == file
    except signing.BadSignature:
        return False


def _signer(channel: ChannelConfig) -> signing.TimestampSigner:
    return signing.TimestampSigner(salt=f"file:{channel.public_id}")
