"""WhatsApp's error codes: words for staff, and what each means for a send.

Source: https://developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes.
The same codes come in the answer to a send and, later, in a status ``failed``.
"""

from __future__ import annotations

from channels_ingest.adapters.meta.graph import Meaning, Meanings
from conversations.contracts import Scope

MINUTE = 60.0


def _all(scope: Scope, words: dict[int, str]) -> dict[int, Meaning]:
    return {code: Meaning(words=each, scope=scope) for code, each in words.items()}


# Only this reply: the same request would be refused again.
REPLY = {
    100: "WhatsApp does not accept a value in this message",
    130472: "WhatsApp keeps marketing messages from this person, as an experiment",
    131008: "a required value is missing",
    131009: "a value is not valid",
    131021: "the recipient is our own number",
    131049: "WhatsApp limits how many marketing messages this person gets; not before 24 hours",
    131051: "WhatsApp does not know this kind of message",
    131052: "a file could not be downloaded",
    131053: "WhatsApp could not take our file: wrong type, too large, or its link does not answer",
    131062: "this template goes to phone numbers only, and we know only the person's user id",
    131063: "marketing templates of this account go only through the marketing messages API",
    132000: "the template takes another number of values: if it was changed, run fetch_templates",
    132001: "there is no approved template of this name in this language: run fetch_templates",
    132005: "the template is too long with these values",
    132007: "the template's content breaks a policy: change it in WhatsApp Manager",
    132012: "a value is not in the form that the template wants: if it was changed, run fetch_templates",
    132015: "the template is paused, because people rated it low: wait, or send another",
    132016: "the template is disabled, because people rated it low: send another",
    132068: "the flow of this message is blocked",
    132069: "the flow of this message is throttled",
    135000: "WhatsApp could not read this message",
}
# Free text and media, until the person writes. Templates reach them. The gate's words are the same.
WINDOW = dict.fromkeys((470, 131047), "more than 24 hours since the person's last message: only a template can be sent")
# Marketing templates.
MARKETING = {131050: "the person does not want marketing messages from us"}
# The whole conversation: nothing reaches this person.
CONVERSATION = {
    130403: "we blocked this person",
    131026: "the person cannot be reached: no WhatsApp, an old version, or its terms are not accepted",
    131030: "a test number sends only to the numbers on its list in the app's settings",
}
# The whole channel: its token, its number or its account.
CHANNEL = {
    0: "the access token is not valid",
    3: "the app may not make this call",
    10: "the app lacks a permission",
    33: "the phone number does not exist or was deleted",
    190: "the access token has expired or was revoked",
    368: "the account is blocked for breaking a policy",
    130497: "the account may not write to people in this country",
    131005: "the access token lacks a permission",
    131031: "the account is locked",
    131037: "the number's display name is not approved",
    131042: "there is no valid payment method",
    131045: "the number is not registered with its certificate",
    133010: "the number is not registered",
    **dict.fromkeys(range(200, 300), "the app lacks a permission"),
}
# Not taken because of a limit: it waits without spending an attempt. Seconds; Meta states none.
# The limit of a pair (our number and one person) is one message in 6 s, and about 45 at once.
WAITS = {
    4: Meaning(words="the app calls too often", wait=MINUTE),
    80007: Meaning(words="the account calls too often", wait=MINUTE),
    130429: Meaning(words="the number sends more messages a second than it may", wait=5.0),
    131048: Meaning(words="too many people blocked or reported this number", wait=10 * MINUTE),
    131056: Meaning(words="too many messages to this person at once", wait=16.0, bucket="chat"),
    131057: Meaning(words="the account is being maintained", wait=MINUTE),
    131064: Meaning(words="the account's templates have the wrong category too often", wait=10 * MINUTE),
}
# Not taken for a passing reason of Meta's.
PASSING = {
    1: "Meta has a fault",
    2: "Meta's service is down",
    131000: "WhatsApp has a fault",
    131016: "WhatsApp is overloaded",
    133004: "WhatsApp's server is away",
}

MEANINGS: Meanings = {
    **_all(Scope.REPLY, REPLY),
    **_all(Scope.WINDOW, WINDOW),
    **_all(Scope.MARKETING, MARKETING),
    **_all(Scope.CONVERSATION, CONVERSATION),
    **_all(Scope.CHANNEL, CHANNEL),
    **WAITS,
    **{code: Meaning(words=words) for code, words in PASSING.items()},
    # The general layer of the Graph API: the id in the URL does not exist, or is not ours.
    (100, 33): Meaning(words="the phone_number_id does not exist, or the token may not use it", scope=Scope.CHANNEL),
}
