"""Meta's own schemas of what we send (tests/fixtures/meta-openapi-v23.0.json has source and licence)."""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator

from tests.kit.fixtures import FIXTURES

PUBLISHED = json.loads((FIXTURES / "meta-openapi-v23.0.json").read_text())["components"]["schemas"]
SCHEMAS = {"contacts": "ContactsMessage"}  # of a type; of others it is named by the type


def corrected(schema: Any) -> Any:
    """Return a published schema as Meta means it.

    Each message is a base and, beside it, a part that allows no other members, not even the base's.
    ``to`` may be ``recipient`` since user ids came. The pattern of a button's index refuses 0. The
    body of a list may be longer than that of buttons.
    """
    if isinstance(schema, list):
        return [corrected(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: corrected(value) for name, value in schema.items()}
    for part in found.get("allOf", []):
        part.pop("additionalProperties", None)
    if "to" in found.get("required", []):
        found["required"] = [name for name in found["required"] if name != "to"]
        found["oneOf"] = [{"required": ["to"]}, {"required": ["recipient"]}]
    if found.get("pattern") == "^[2-6, 11-14]$":
        found["pattern"] = "^[0-9]$"
    if found.get("maxLength") == 1024:
        found["maxLength"] = 4096
    return found


def validate(name: str, value: Any) -> None:
    """Raise ``jsonschema.ValidationError`` unless ``value`` is as the schema ``name`` says."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": corrected(PUBLISHED)}}
    Draft202012Validator(schema).validate(json.loads(json.dumps(value)))


def validate_message(value: dict[str, Any]) -> None:
    """``validate`` for a message of any type."""
    validate(SCHEMAS.get(value["type"], f"{value['type'].capitalize()}Message"), value)
