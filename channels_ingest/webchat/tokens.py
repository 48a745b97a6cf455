"""Who a visitor is, without cookies: a signed token, bound to its channel.

An anonymous visitor is ``v:`` and 192 random bits. A customer whose site vouches for him is ``i:``
and the site's own id; the site proves it with an HMAC-SHA256 of the id under the channel's
``identify_secret``, as hex. The two never meet, whatever id a site uses.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from django.core import signing

from channels_ingest.formats.signatures import any_same
from conversations.contracts import ChannelConfig

DAY = 24 * 3600
ANONYMOUS_SECONDS = 400 * DAY  # a conversation is kept over reloads for as long as browsers keep anything
IDENTIFIED_SECONDS = DAY  # the site vouches again at each load
MAX_ID = 200  # characters of a site's own id
MAX_TOKEN = 2000


def new_visitor() -> str:
    return "v:" + secrets.token_urlsafe(24)


def identified_visitor(channel: ChannelConfig, user_id: str, given: str) -> str | None:
    """The visitor that a site vouches for; None when the hash is wrong or the channel has no secret."""
    wanted = [identity_hash(secret, user_id) for secret in channel.secrets("identify_secret")]
    usable = 0 < len(user_id) <= MAX_ID and user_id.isprintable()
    return f"i:{user_id}" if any_same(given.lower(), wanted) and usable else None


def identity_hash(secret: str, user_id: str) -> str:
    """What a customer's server computes for ``identify(id, hash)``."""
    return hmac.new(secret.encode(), user_id.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def issue(channel: ChannelConfig, visitor: str) -> str:
    return signing.dumps(visitor, salt=_salt(channel))


def read(channel: ChannelConfig, token: str) -> str | None:
    """The visitor of a token; None when it is not ours, of another channel, or too old."""
    if len(token) > MAX_TOKEN:
        return None
    try:
        visitor = signing.loads(token, salt=_salt(channel), max_age=ANONYMOUS_SECONDS)
        if visitor.startswith("i:"):
            signing.loads(token, salt=_salt(channel), max_age=IDENTIFIED_SECONDS)
    except signing.BadSignature:
        return None
    return str(visitor)


def _salt(channel: ChannelConfig) -> str:
    return f"webchat:{channel.public_id}"
