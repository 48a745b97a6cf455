"""The Bot API: what a call says, whether it is refused, and how it is answered."""

from __future__ import annotations

import json
import re
from typing import Any

from channels_ingest.fake_platform import tables
from channels_ingest.fake_platform.tables import Error
from channels_ingest.fake_platform.world import World

NAME = "telegram"
PATH = re.compile(r"/(?:file/)?bot([^/]*)/([^?]*)")
TOKEN = re.compile(r"\d+:.+")
FILE_PATH = "photos/"  # how the path of a file begins that getFile names
METHODS = re.compile(
    "send[A-Z].*|photos/.*|getMe|getWebhookInfo|setWebhook|deleteWebhook|getFile|deleteMessage|setMessageReaction"
    "|answer(CallbackQuery|PreCheckoutQuery|ShippingQuery|GuestQuery)|editMessage(Text|ReplyMarkup)"
)
UNSEEN = ("sendChatAction", "sendMessageDraft")  # these leave no message
SECRET_TOKEN = re.compile(r"[A-Za-z0-9_-]*")
# Parameters that a form holds as JSON.
JSON_FIELDS = ("reply_markup", "entities", "caption_entities", "reply_parameters", "prices", "media")


def describe(path: str, headers: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    """Return what a call says; ``server.Handler`` lists it."""
    for name, value in body.items():
        if name in JSON_FIELDS and isinstance(value, str):
            body[name] = json.loads(value)
        elif isinstance(value, str) and value.startswith("attach://"):  # the file comes in the same form
            body[name] = body.get("file_id", "")
    found = PATH.match(path)
    token, method = found.groups() if found else ("", "")
    text = str(body.get("text") or body.get("caption") or body.get("title") or "")
    return {
        "method": method,
        "token": token,
        "chat": str(body.get("chat_id", "")),
        "text": text,
        "shown": method.startswith("send") and method not in UNSEEN,
        "file": method.removeprefix(FILE_PATH) if method.startswith(FILE_PATH) else "",
    }


def refusal(call: dict[str, Any], world: World) -> Error | None:
    """Return the error with which the Bot API refuses a call; None if it accepts it."""
    method, body = call["method"], call["body"]
    if not world.is_open and call["token"] not in world.accounts:
        return tables.error(NAME, "401" if TOKEN.fullmatch(call["token"]) else "404")
    if not METHODS.fullmatch(method):
        return tables.error(NAME, "method not found")
    found = tables.refusal(NAME, method, body)
    if found is None and method == "setWebhook" and not SECRET_TOKEN.fullmatch(body.get("secret_token", "")):
        return tables.error(NAME, "secret token contains unallowed characters")
    return found or _unknown(call, world)


def _unknown(call: dict[str, Any], world: World) -> Error | None:
    """Return the refusal of an id that this bot never got."""
    method, body, chat = call["method"], call["body"], call["chat"]
    if chat and not world.knows(call["token"], chat):
        return tables.error(NAME, "chat_not_found")
    file = body.get(method.removeprefix("send").lower(), body.get("file_id", "")) if method != "sendMessage" else ""
    if isinstance(file, str) and file and "://" not in file and not world.has_file(file):
        return tables.error(NAME, "wrong file identifier/HTTP URL specified")
    return None


def error_body(error: Error, rule: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a refusal. A rule of the script may have words and parameters of its own."""
    parameters = {name: rule[name] for name in ("retry_after", "migrate_to_chat_id") if name in rule}
    body = {"ok": False, "error_code": error.status, "description": rule.get("description", error.words)}
    return {**body, **({"parameters": parameters} if parameters else {})}


def success(call: dict[str, Any], message_id: int, world: World) -> Any:
    """Return the body of the answer to a call that is accepted."""
    return {"ok": True, "result": _result(call, message_id, world)}


def _result(call: dict[str, Any], message_id: int, world: World) -> Any:
    method, body = call["method"], call["body"]
    if method == "getMe":
        return {"id": 4242, "is_bot": True, "first_name": "Double", "username": "double_bot"}
    if method == "getWebhookInfo":
        return {"url": "", "has_custom_certificate": False, "pending_update_count": 0}
    if method == "getFile":
        file = body["file_id"]
        size = len(world.files[file].content) if file in world.files else 0
        return {"file_id": file, "file_unique_id": file, "file_size": size, "file_path": FILE_PATH + file}
    if not call["shown"]:
        return True
    message = {"message_id": message_id, "date": int(call["at"]), "chat": {"id": body.get("chat_id")}}
    name = method.removeprefix("send").lower()
    if body.get(name) in world.files:
        file = {"file_id": body[name], "file_unique_id": body[name]}
        message[name] = [file] if name == "photo" else file
    return message
