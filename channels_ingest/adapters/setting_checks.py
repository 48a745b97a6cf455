"""What a person typed as a setting of a channel, checked. The words of an error are for them."""

from __future__ import annotations

import re

from django.conf import settings

from channels_ingest.outbound import addresses, http
from conversations.errors import WrongSetting

# The pattern of a setting that is a URL. Such a setting must also pass the guard against SSRF.
URL = "https?://.+"


def check_pattern(pattern: str, name: str, value: str, help: str) -> None:
    """Raise ``WrongSetting`` if a value does not match its pattern; '' removes the setting."""
    if "\0" in value or (value and pattern and not re.fullmatch(pattern, value)):
        raise WrongSetting(f"{name} cannot be that; it is: {help}")


def check_url(url: str) -> None:
    """Raise ``WrongSetting`` if outbound calls may not go to ``url``; '' removes the setting.

    A name that does not resolve now is accepted: it is checked again at each connection.
    """
    if not url:
        return
    try:
        addresses.check_url(url, allow_private=True)
    except addresses.AddressRefused:
        raise WrongSetting(f"{url} is not an http or https URL") from None
    if settings.ALLOW_PRIVATE_OUTBOUND:
        return
    try:
        target = addresses.check_url(url, allow_private=False, ports=http.allowed_ports())
        addresses.public_addresses(target.host, target.port)
    except addresses.AddressRefused as error:
        raise WrongSetting(f"{url}: {error} (ALLOW_PRIVATE_OUTBOUND is off)") from None
    except (OSError, UnicodeError):
        pass
