"""Signs and reads the token that says who a visitor is. It is valid for one channel, without cookies.

An anonymous visitor is ``v:`` and 192 random bits. A customer whom the site vouches for is ``i:`` and
the site's own id. The site proves it by an HMAC-SHA256 of the id, in hex, under the channel's
``identify_secret``. The prefixes keep both apart, whatever ids a site uses.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from django.core import signing

from channels_ingest.formats.signatures import any_same
from conversations.contracts import ChannelConfig

DAY = 24 * 3600
# Life of a token: as long as browsers keep data; shorter: visitors lose their chat
ANONYMOUS_SECONDS = 400 * DAY
# Life of a customer's token; the site vouches again at each load of its page
IDENTIFIED_SECONDS = DAY
MAX_ID = 200  # characters of a site's own id
MAX_TOKEN = 2000  # characters; a longer token is refused without checking its signature


def new_visitor() -> str:
    return "v:" + secrets.token_urlsafe(24)


def identified_visitor(channel: ChannelConfig, user_id: str, given: str) -> str | None:
    """Return the visitor that a site vouches for; None if the hash is wrong or the channel has no secret."""
    wanted = [identity_hash(secret, user_id) for secret in channel.secrets("identify_secret")]
    usable = 0 < len(user_id) <= MAX_ID and user_id.isprintable()
    return f"i:{user_id}" if any_same(given.lower(), wanted) and usable else None


def identity_hash(secret: str, user_id: str) -> str:
    """Compute the hash for ``identify(id, hash)``, as a site's server does."""
    return hmac.new(secret.encode(), user_id.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def issue(channel: ChannelConfig, visitor: str) -> str:
    return signing.dumps(visitor, salt=_salt(channel))


def read(channel: ChannelConfig, token: str) -> str | None:
    """Return the visitor of a token; None if it is not ours, belongs to another channel, or is too old."""
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
