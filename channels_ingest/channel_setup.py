"""Sets a channel up: checks what a person typed, then writes the row.

``add_channel``, ``set_channel`` and ``apply_channels`` share it. A setting that the adapter
declares as a secret is a credential. Any other setting is an option, of all channels (below) or of
the platform.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from channels_ingest.adapters.base import Option
from channels_ingest.adapters.setting_checks import URL, check_pattern, check_url
from conversations import registry
from conversations.contracts import ChannelConfig, Work
from conversations.errors import UnknownBot, UnknownPlatform, WrongSetting
from conversations.lanes import pauses
from conversations.models import App, Audit, Channel, Tenant

# Options that every channel has.
OPTIONS = (
    Option(name="settle_ms", help="0 to 2000 ms to wait for an earlier message", pattern="[0-9]{1,4}", number=True),
    Option(name="parked_policy", help="block, skip or human", pattern="block|skip|human"),
    Option(name="gap_timeout_s", help="seconds to wait for a missing seq", pattern="[0-9]{1,6}", number=True),
    Option(name="gap_policy", help="go_on or block", pattern="go_on|block"),
    Option(name="unknown_policy", help="resend or ask", pattern="resend|ask"),
    Option(name="group_lane", help="user or chat", pattern="user|chat"),
    Option(name="sorry_text", help="what a person reads when a message could not be handled", pattern=r"(?s).{1,1000}"),
    Option(name="opt_out_words", help="words that stop our messages (stop,baja), or off", pattern=".{1,500}"),
    Option(name="opt_in_words", help="words that end that (start,alta)", pattern=".{1,500}"),
    Option(
        name="limits",
        help="default, off, or overrides such as channel:80/1s,chat:1/1s",
        pattern=r"default|off|(channel|chat|group):[0-9]+/[0-9.]+s(,(channel|chat|group):[0-9]+/[0-9.]+s)*",
    ),
    Option(name="bot_url", help="URL of an http bot", pattern=URL),
)
# Options of channels whose platform delivers in any order and reports it.
DELIVERY_OPTIONS = (
    Option(
        name="wait_for",
        help="sent or delivered: what the next reply waits for; without it, delivered for a reply with media only",
        pattern="sent|delivered",
    ),
    Option(name="wait_for_s", help="0 to 60 s to wait for delivered", pattern="[0-9]|[1-5][0-9]|60", number=True),
)
# Largest value of ``settle_ms``, in milliseconds. Larger: a channel may make each of its messages
# wait longer. Smaller: more messages that arrive late are handled out of order.
SETTLE_MS_MAX = 2000
# Settings that a channel with the bot ``http`` must have: where its turns go, and what signs them.
HTTP_BOT_NEEDS = ["bot_secret", "bot_url"]


def apply(
    platform: str,
    name: str,
    *,
    tenant: str = "default",
    given: Mapping[str, str],
    bot: str | None = None,
    api_base: str | None = None,
    active: bool | None = None,
    app: str | None = None,
    fresh: bool = False,
) -> tuple[Channel, str]:
    """Create the channel of this tenant and name, or change it.

    Return it with created, changed or unchanged. With ``fresh`` it must not exist yet, so that
    ``add_channel`` never changes a channel. Raises ``WrongSetting``.
    """
    owner, _ = Tenant.objects.get_or_create(name=tenant)
    channel = Channel.objects.filter(tenant=owner, name=name).first()
    if channel is not None and (fresh or channel.platform != platform):
        raise WrongSetting(f"{tenant} already has a {channel.platform} channel named {name!r}: {channel.public_id}")
    if channel is None:
        channel = Channel(tenant=owner, platform=platform, name=name)
    return channel, change(channel, given, bot=bot, api_base=api_base, active=active, app=app)


def change(
    channel: Channel,
    given: Mapping[str, str],
    *,
    bot: str | None = None,
    api_base: str | None = None,
    active: bool | None = None,
    app: str | None = None,
) -> str:
    """Write the settings that differ, with an audit entry; return created, changed or unchanged.

    None leaves a setting as it is; ``app`` is the public id of one, '' for none. The audit entry
    holds old and new values, but of credentials only the names. A new channel must be complete,
    unless it is switched off.
    """
    created = channel.pk is None
    before = {} if created else _settings_of(channel)
    credentials, options = checked(channel.platform, given)
    if app is not None:
        channel.app = _app_for(channel, app) if app else None
    if created:
        credentials = {**generated(channel.platform, [*given, *_sealed_in_app(channel)]), **credentials}
    credentials = {
        name: value for name, value in credentials.items() if channel.open_credentials().get(name, "") != value
    }
    channel.options = {**channel.options, **options}
    channel.external_id = str(channel.options.get(_adapter(channel.platform).channel_ref_option, ""))
    channel.bot = _known_bot(bot) if bot is not None else channel.bot
    if api_base is not None:
        check_url(api_base)
        channel.api_base = api_base
    channel.active = channel.active if active is None else active
    changes = {**dict.fromkeys(credentials), **_differences(before, _settings_of(channel))}
    if not created and not changes:
        return "unchanged"
    channel.set_credentials(credentials)
    if created and channel.active:
        _refuse_incomplete(channel)
    save(channel, "add channel" if created else "change channel", changes)
    end_pauses([channel.pk], (Work.HANDLE, Work.SEND) if credentials or "app" in changes else (Work.HANDLE,))
    return "created" if created else "changed"


def save(row: Channel | App, verb: str, changes: Mapping[str, Any]) -> None:
    """Write a channel or an app with its audit entry.

    Raises ``WrongSetting`` if another one has its name, or its id in the app.
    """
    try:
        with transaction.atomic():
            row.save()
            subject = row.place().replace(":", " ", 1)
            Audit.objects.create(verb=verb, tenant_id=row.tenant_id, subject=subject, changes=changes)
    except IntegrityError as error:
        option = _adapter(row.platform).channel_ref_option
        by_id = "channel_once_per_app" in str(error)
        raise WrongSetting(f"the app has a channel with this {option}" if by_id else "the name is taken") from None
    registry.forget_channels()


def end_pauses(channels: Iterable[int], works: Iterable[Work]) -> None:
    """End pauses of channels: what was wrong may be right now."""
    for channel in channels:
        for work in works:
            pauses.count_success(pauses.Key(pauses.CHANNEL, str(channel), work.activity))


def find_app(public_id: str) -> App:
    """Return the app with this public id. Raises ``WrongSetting``."""
    app = App.objects.filter(public_id=public_id).first()
    if app is None:
        raise WrongSetting(f"no app has the public id {public_id!r}; see list_apps")
    return app


def _app_for(channel: Channel, public_id: str) -> App:
    """Return the app if the channel may belong to it. Raises ``WrongSetting``."""
    app = find_app(public_id)
    if app.platform != channel.platform or app.tenant_id not in (None, channel.tenant_id):
        raise WrongSetting(f"{app} is another platform's or another tenant's")
    return app


def _sealed_in_app(channel: Channel) -> list[str]:
    """Return the names of the credentials that the channel's app has."""
    return list(channel.app.sealed) if channel.app else []


def checked(platform: str, given: Mapping[str, str]) -> tuple[dict[str, str], dict[str, Any]]:
    """Split settings into credentials and options.

    ``WrongSetting`` says what is wrong and what is known.
    """
    adapter, known_options = _adapter(platform), options_of(platform)
    known_secrets = adapter.accepted_secrets()
    credentials, options = {}, {}
    for name, value in given.items():
        if name in known_secrets:
            adapter.check_credential(name, value)
            credentials[name] = value
        elif name in known_options:
            options[name] = _option(known_options[name], value)
        else:
            known = ", ".join([*known_secrets, *known_options])
            raise WrongSetting(f"{platform} has no setting {name!r}; known: {known}")
    return credentials, options


def options_of(platform: str) -> dict[str, Option]:
    """Return the options of all channels and those of ``platform``, by name."""
    adapter = _adapter(platform)
    options = (*OPTIONS, *(DELIVERY_OPTIONS if adapter.reports_delivery else ()), *adapter.options)
    return {option.name: option for option in options}


def missing(channel: Channel) -> list[str]:
    """Return the settings without which a channel cannot work: its platform's, and an http bot's.

    'adapter' where its platform has none.
    """
    if channel.platform not in settings.ADAPTERS:
        return ["adapter"]
    needed = [secret.name for secret in _adapter(channel.platform).secrets if secret.required]
    needed += HTTP_BOT_NEEDS if channel.bot == "http" else []
    needed += [_adapter(channel.platform).channel_ref_option] if channel.app else []
    present = {*channel.sealed, *_sealed_in_app(channel), *(name for name, value in channel.options.items() if value)}
    present |= {"outbound_url"} if channel.api_base else set()
    present |= {"bot_secret"} if "secret" in present else set()
    return [name for name in dict.fromkeys(needed) if name not in present]


def _refuse_incomplete(channel: Channel) -> None:
    """Raise ``WrongSetting``, which says what is missing and how to set it, unless all is there."""
    adapter = _adapter(channel.platform)
    helps = {**adapter.describe_credentials(), **{name: o.help for name, o in options_of(channel.platform).items()}}
    lacks = [f"--set {name}=... ({helps[name]})" for name in missing(channel)]
    if lacks:
        raise WrongSetting(f"a {channel.platform} channel with the bot {channel.bot!r} also needs {', '.join(lacks)}")


def generated(platform: str, given: Iterable[str]) -> dict[str, str]:
    """Generate the secrets that we choose ourselves, unless they were given."""
    names = set(given)
    declared = _adapter(platform).secrets
    return {s.name: secrets.token_urlsafe(32) for s in declared if s.generated and s.name not in names}


def config(channel: Channel) -> ChannelConfig:
    """Return the channel as adapters see it, as it is stored."""
    registry.forget_channels()
    found = registry.channel(channel.pk)
    assert found is not None
    return found


def read_value(value: str) -> str:
    """Return the typed value, the variable of ``env:NAME``, or for ``-`` a line of standard input.

    With the latter two, a secret need not stand on the command line.
    """
    if value == "-":
        return sys.stdin.readline().rstrip("\r\n")
    if not value.startswith("env:"):
        return value
    try:
        return os.environ[value.removeprefix("env:")]
    except KeyError:
        raise WrongSetting(f"the environment has no {value.removeprefix('env:')}") from None


def _settings_of(channel: Channel) -> dict[str, Any]:
    """Return a channel's settings without credentials, for the audit entry."""
    app = channel.app.public_id if channel.app else ""
    return {"bot": channel.bot, "api_base": channel.api_base, "active": channel.active, "app": app, **channel.options}


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return name -> [old, new] for each setting that differs; a missing one equals ''."""
    return {name: [before.get(name), value] for name, value in after.items() if value != before.get(name, "")}


def _adapter(platform: str) -> Any:
    """Return a platform's adapter. Raises ``WrongSetting`` if there is none."""
    try:
        return registry.adapter(platform)
    except UnknownPlatform as error:
        raise WrongSetting(str(error)) from None


def _known_bot(name: str) -> str:
    """Return ``name`` if there is such a bot. Raises ``WrongSetting``."""
    try:
        registry.find_bot(name)
    except UnknownBot as error:
        raise WrongSetting(str(error)) from None
    return name


def _option(option: Option, value: str) -> Any:
    """Return an option's value, checked, and as an integer if the option is a number."""
    check_pattern(option.pattern, option.name, value, option.help)
    if option.name == "settle_ms" and int(value) > SETTLE_MS_MAX:
        raise WrongSetting(f"settle_ms is at most {SETTLE_MS_MAX}")
    if option.pattern == URL:
        check_url(value)
    return int(value) if option.number and value else value
