"""Sets an app up: secrets that several channels of one platform share. For ``add_app`` and ``set_app``."""

from __future__ import annotations

from collections.abc import Mapping

from channels_ingest import channel_setup
from conversations import registry
from conversations.contracts import Work
from conversations.errors import WrongSetting
from conversations.models import App, Channel, Tenant


def add(platform: str, name: str, *, tenant: str | None, given: Mapping[str, str]) -> App:
    """Create the app, for channels of ``tenant``, or of all tenants if that is None.

    Secrets that we choose ourselves are generated. Raises ``WrongSetting``.
    """
    credentials = _checked(platform, given)
    owner = Tenant.objects.get_or_create(name=tenant)[0] if tenant is not None else None
    app = App(tenant=owner, platform=platform, name=name)
    credentials = {**channel_setup.generated(platform, given), **credentials}
    app.set_credentials(credentials)
    channel_setup.save(app, "add app", dict.fromkeys(credentials))
    return app


def change(app: App, given: Mapping[str, str]) -> str:
    """Write the credentials that differ; an empty value removes one. Return changed or unchanged.

    Ends the pauses of its channels that wrong credentials may have caused. Raises ``WrongSetting``.
    """
    known = app.open_credentials()
    credentials = {name: value for name, value in _checked(app.platform, given).items() if known.get(name, "") != value}
    if not credentials:
        return "unchanged"
    app.set_credentials(credentials)
    channel_setup.save(app, "change app", dict.fromkeys(credentials))
    channels = Channel.objects.filter(app=app).values_list("pk", flat=True)
    channel_setup.end_pauses(channels, (Work.HANDLE, Work.SEND))
    return "changed"


def _checked(platform: str, given: Mapping[str, str]) -> dict[str, str]:
    """Return ``given`` if these are secrets that an app of the platform may have."""
    credentials, options = channel_setup.checked(platform, given)
    if not registry.adapter(platform).channel_ref_option:
        raise WrongSetting(f"{platform} has no apps: each channel has a webhook and secrets of its own")
    if options:
        raise WrongSetting(f"{', '.join(options)}: a setting of each channel, not of its app")
    return credentials
