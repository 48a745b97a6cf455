"""Signs and reads the token that says who a visitor is, for one channel. No cookies.

An anonymous visitor is ``v:`` and 192 random bits. A customer whom the site vouches for is ``i:``
and the site's own id. The site proves it by an HMAC-SHA256 of the id, in hex, under the channel's
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
# Life of a visitor's token in seconds. Larger: of no use, browsers keep no data for longer.
# Smaller: visitors lose their chat sooner.
ANONYMOUS_SECONDS = 400 * DAY
# Life of a customer's token in seconds; each load of the site's page brings a new one. Larger: a
# stolen token works for longer. Smaller: a page that stays open loses its chat.
IDENTIFIED_SECONDS = DAY
# Longest id of a site's customer, in characters. Larger: longer tokens. Smaller: more are refused.
MAX_ID = 200
# Longest token, in characters. Larger: checking the signature of nonsense takes more CPU. Smaller:
# tokens with long ids are refused.
MAX_TOKEN = 2000


def new_visitor() -> str:
    return "v:" + secrets.token_urlsafe(24)


def identified_visitor(channel: ChannelConfig, user_id: str, given: str) -> str | None:
    """Return the visitor that a site vouches for.

    None if the hash is wrong, the id is not usable, or the channel has no secret.
    """
    wanted = [identity_hash(secret, user_id) for secret in channel.secrets("identify_secret")]
    usable = 0 < len(user_id) <= MAX_ID and user_id.isprintable()
    return f"i:{user_id}" if any_same(given.lower(), wanted) and usable else None


def identity_hash(secret: str, user_id: str) -> str:
    """Compute the hash for ``identify(id, hash)``, as a site's server does."""
    return hmac.new(secret.encode(), user_id.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def issue(channel: ChannelConfig, visitor: str) -> str:
    """Return a signed token that says who the visitor is."""
    return signing.dumps(visitor, salt=_salt(channel))


def read(channel: ChannelConfig, token: str) -> str | None:
    """Return the visitor of a token; None if it is not ours, of this channel, or is too old."""
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
    """Return the channel's salt: with it, no other channel accepts the token."""
    return f"webchat:{channel.public_id}"
