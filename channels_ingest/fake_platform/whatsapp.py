"""WhatsApp's Cloud API: what a call says, whether it is refused, and how it is answered.

Most refusals come at once. Some (``later`` in ``errors.csv``, such as a closed window) come as a
status ``failed`` after an answer 200, as many reports say (chatwoot#10143, frappe_whatsapp#133).
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from channels_ingest.fake_platform import tables
from channels_ingest.fake_platform.tables import Error
from channels_ingest.fake_platform.world import World

NAME = "whatsapp"
PATH = re.compile(r"/v\d+\.\d+/([^/?]+)/?([^?]*)")
MEDIA_PATH = "/whatsapp-media/"  # where the URL of a file leads
BSUID = re.compile(r"[A-Z]{2}\.\w+")
COUNTRY = "49"  # of the business: put before a number without +
MEDIA = ("image", "video", "audio", "document", "sticker")
KINDS = (*MEDIA, "text", "interactive", "location", "contacts", "template", "reaction", "read")
VARIABLE = re.compile(r"\{\{(\w+)\}\}")
BREAKS = re.compile(r"[\n\t]| {5}")  # what a template's value may not hold
TEMPLATE_TEXT = 1024
NOT_SENDABLE = {"PAUSED": "132015", "DISABLED": "132016"}


def is_path(path: str) -> bool:
    """Return True if WhatsApp answers under this path."""
    return bool(PATH.match(path)) or path.startswith(MEDIA_PATH)


def describe(path: str, headers: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    """Return what a call says; ``server.Handler`` lists it. The method of a message is its type.

    A BSUID in ``to`` is answered 200 and reaches nobody.
    """
    found = PATH.match(path)
    owner, edge = found.groups() if found else ("", "file")
    kind = str(body.get("type") or body.get("status")) if edge == "messages" else edge or "object"
    content: Any = body[kind] if isinstance(body.get(kind), dict) else {}
    words = content.get("body") or content.get("caption")
    text = words.get("text") if isinstance(words, dict) else words
    return {
        "method": kind,
        "owner": owner,
        "token": headers.get("authorization", "").removeprefix("Bearer "),
        "chat": _chat(body),
        "text": str(text or ""),
        "name": "wamid.fake{}",
        "shown": kind in KINDS and kind != "read" and not BSUID.match(str(body.get("to") or "")),
        "file": path.removeprefix(MEDIA_PATH) if path.startswith(MEDIA_PATH) else "",
    }


def _chat(body: dict[str, Any]) -> str:
    """Return whom a message reaches: a number's digits, a BSUID or a group. ``to`` wins.

    Without +, Meta puts the business's own country code before a number.
    """
    to = str(body.get("to") or "")
    if not to or body.get("recipient_type") == "group" or BSUID.match(to):
        return to or str(body.get("recipient") or "")
    return to[1:] if to.startswith("+") else COUNTRY + to


def refusal(call: dict[str, Any], world: World) -> Error | None:
    """Return the error with which WhatsApp refuses a call; None if it accepts it."""
    account, kind, body = world.accounts.get(call["token"]), call["method"], call["body"]
    if not call["token"] or (account is None and not world.is_open):
        return tables.error(NAME, "190")
    if account and call["owner"] not in (account.number, account.owner, *world.files, ""):
        return tables.error(NAME, "100/33")
    if kind == "media":
        about = {**body, "type": str(body.get("type") or "").partition(";")[0]}  # audio/ogg; codecs=opus
        found = tables.refusal(NAME, "upload", about) or tables.refusal(NAME, f"upload/{about['type']}", about)
        return found and found._replace(later=False)
    if kind not in KINDS:
        return None if "type" not in body else tables.error(NAME, "100", "type must be one of the known types")
    return _message(call, world)


def _message(call: dict[str, Any], world: World) -> Error | None:
    kind, body = call["method"], call["body"]
    interactive = body.get("interactive") if kind == "interactive" else None
    endpoint = f"{kind}/{interactive.get('type')}" if isinstance(interactive, dict) else kind
    found = tables.refusal(NAME, endpoint, body)
    if found or kind == "read":
        return found
    if not call["chat"]:
        return tables.error(NAME, "100", "to or recipient is required")
    if kind in MEDIA and ("id" in body[kind]) == ("link" in body[kind]):
        return tables.error(NAME, "100", "exactly one of id and link is required")
    if kind in MEDIA and "id" in body[kind] and not world.has_file(str(body[kind]["id"])):
        return tables.error(NAME, "131009", "no media has this id")
    if kind == "template":
        return _template(body["template"], world)
    if world.has_window(call["token"], call["chat"]):
        return None
    return tables.error(NAME, "131047" if world.knows(call["token"], call["chat"]) else "131026")


def _template(sent: dict[str, Any], world: World) -> Error | None:
    """Return the refusal of a template that is not as Meta approved it: name, header, values, length."""
    name, language = sent["name"], sent["language"]["code"]
    known = [each for each in world.templates if (each["name"], each["language"]) == (name, language)]
    if not known or known[0]["status"] != "APPROVED":
        code = NOT_SENDABLE.get(known[0]["status"], "132001") if known else "132001"
        return tables.error(NAME, code, f"template name ({name}) does not exist in {language}")
    shapes = {each["type"].lower(): each for each in known[0]["components"]}
    given = {each.get("type"): each.get("parameters", []) for each in sent.get("components", [])}
    for part in ("header", "body"):
        kind, names = shapes.get(part, {}).get("format", "TEXT"), VARIABLE.findall(shapes.get(part, {}).get("text", ""))
        wanted, found = ["text"] * len(names) if kind == "TEXT" else [kind.lower()], given.get(part, [])
        if len(wanted) != len(found):
            return tables.error(NAME, "132000", f"{part}: {len(found)} instead of {len(wanted)} parameters")
        if [each.get("type") for each in found] != wanted:
            return tables.error(NAME, "132012", f"{part}: {', '.join(wanted)} expected")
    return _values(shapes["body"]["text"], given.get("body", []), known[0]["parameter_format"] == "NAMED")


def _values(text: str, given: list[dict[str, Any]], is_named: bool) -> Error | None:
    """Return the refusal of the values of a template's body."""
    if is_named and {each.get("parameter_name") for each in given} != set(VARIABLE.findall(text)):
        return tables.error(NAME, "100", "Parameter name is missing or empty")
    if any(BREAKS.search(each["text"]) for each in given):
        return tables.error(NAME, "100", "text cannot have new-line/tab characters or more than 4 consecutive spaces")
    size = len(VARIABLE.sub("", text)) + sum(len(each["text"]) for each in given)
    return tables.error(NAME, "132005") if size > TEMPLATE_TEXT else None


def error_body(error: Error, rule: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a refusal."""
    code, _, subcode = error.name.partition("/")
    return {
        "error": {
            "message": f"(#{code}) {rule.get('description', error.words)}",
            "type": "OAuthException",
            "code": int(code),
            **({"error_subcode": int(subcode)} if subcode else {}),
            "error_data": {"messaging_product": "whatsapp", "details": error.details or error.words},
            "fbtrace_id": "fake",
        }
    }


def success(call: dict[str, Any], message_id: int, world: World) -> Any:
    """Return the body of the answer to a call that is accepted."""
    kind, body = call["method"], call["body"]
    if "messages" in call["path"] and kind != "read":
        contact = {"input": body.get("to") or body.get("recipient"), "wa_id": call["chat"]}
        return {
            "messaging_product": "whatsapp",
            "contacts": [contact],
            "messages": [{"id": call["name"], "message_status": "accepted"}],
        }
    if kind == "media":
        return {"id": body["file_id"]}
    if kind == "message_templates":
        data = [] if "after" in body else world.templates  # all are on the first page
        return {"data": data, "paging": {"cursors": {"before": "a", "after": "b"}}}
    if call["owner"] in world.files:
        file, digest = world.files[call["owner"]], hashlib.sha256(world.files[call["owner"]].content).hexdigest()
        url = f"http://{call['headers'].get('host')}{MEDIA_PATH}{call['owner']}"
        facts = {"mime_type": file.mime_type, "sha256": digest, "file_size": len(file.content), "id": call["owner"]}
        return {"messaging_product": "whatsapp", "url": url, **facts}
    return {"success": True}
