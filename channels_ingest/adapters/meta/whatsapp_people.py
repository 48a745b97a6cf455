"""Who wrote a WhatsApp message, and how to reach them. Pure.

Source: https://developers.facebook.com/documentation/business-messaging/whatsapp/business-scoped-user-ids.

A person has a business-scoped user id (BSUID, ``US.1349...``) and, where Meta says it, a phone
number. We know people by the BSUID, which does not depend on what they show; the number is an
alias. A number alone never makes two people one: carriers give numbers to other people, so that it
is an alias also of a person of whom we know nothing else. Ids are paired only where one record of
the webhook holds both.
"""

from __future__ import annotations

from typing import Any

from channels_ingest.adapters.reading import Json, checked_id, maybe_text, obj, text_id
from conversations.contracts import Sender

GROUP = "group:"  # how the chat of a group begins


class Value:
    """What the items of one change share: the number that they came to, and the people."""

    def __init__(self, shared: Json) -> None:
        """Raises ``Unreadable`` without the id of the number."""
        self.shared = shared
        self.phone_number_id = text_id(obj(shared, "metadata"), "phone_number_id")
        contacts = shared.get("contacts")
        self._contacts = [each for each in contacts if isinstance(each, dict)] if isinstance(contacts, list) else []
        self._by_id = {_word(each, name): each for each in self._contacts for name in ("wa_id", "user_id")}
        self._by_id.pop("", None)

    def sender(self, item: Json, count: int) -> Sender:
        """Return who wrote ``item``, one of ``count`` in its list.

        Contacts are matched by id, never by position. Only where there is one message and one
        contact, that contact wrote it even if no id agrees: Meta rewrites some numbers.
        """
        stated, given = maybe_text(item, "from_user_id"), maybe_text(item, "from")
        contact = self._by_id.get(stated) or self._by_id.get(given)
        known = contact is not None
        if contact is None and not stated and count == len(self._contacts) == 1:
            contact = self._contacts[0]
        contact = contact or {}
        bsuid = stated or _word(contact, "user_id") or ("" if is_phone(given) else given)
        phone = given if is_phone(given) else _phone(contact, "wa_id")
        user = bsuid or phone or maybe_text(item, "from_parent_user_id") or _word(contact, "parent_user_id")
        paired = {_phone(contact, "wa_id"), phone if stated or known else ""}
        profile = contact["profile"] if isinstance(contact.get("profile"), dict) else {}
        return Sender(
            user=checked_id(user, "from"),
            name=_word(profile, "name"),
            username=_word(profile, "username"),
            phone=phone,
            aliases=tuple(sorted((paired | {"" if bsuid else phone}) - {bsuid, ""})),
        )


def read_address(sender: Sender, group: str = "") -> dict[str, Any]:
    """Return what a send needs. A number that is not stated is None, and replaces an older one.

    It may belong to somebody else by now. A BSUID is nobody else's, and stays.
    """
    if group:
        return {"group": group}
    return {"to": sender.phone or None, **({} if is_phone(sender.user) else {"recipient": sender.user})}


def is_phone(id_: str) -> bool:
    """Return True for a phone number as WhatsApp writes it: digits alone, without +."""
    return id_.isascii() and id_.isdigit() and len(id_) <= 20


def _phone(parent: Json, name: str) -> str:
    """Return a member that is a phone number; '' for anything else, such as a BSUID."""
    found = _word(parent, name)
    return found if is_phone(found) else ""


def _word(parent: Json, name: str) -> str:
    """Return a member that is text; '' for anything else: it must not cost the message."""
    value = parent.get(name)
    return value if isinstance(value, str) else ""
