"""The base class of adapters: declared facts, and defaults for the verbs.

An adapter is one class in one file, its verbs in flow order: ``handshake``, ``precheck``, ``verify``,
``parse``, ``answer``, ``fetch``, ``split``, ``send``, ``acknowledge``, ``show_typing``. It knows its platform
and nothing else: no models, no Celery, no Redis. ``parse`` and ``split`` are pure. See
``docs/adding-a-platform.md``.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar

import msgspec

from channels_ingest.adapters.setting_checks import URL, check_pattern, check_url
from channels_ingest.formats import text as cut
from channels_ingest.formats.markdown.reading import read
from channels_ingest.formats.markdown.runs import Runs, plain
from channels_ingest.formats.markdown.splitting import Room
from channels_ingest.formats.markdown.splitting import split as split_markdown
from channels_ingest.formats.markdown.writing import escaped
from channels_ingest.formats.signatures import WHSEC_PATTERN, webhook_key
from channels_ingest.outbound import http
from conversations import choices, crypto
from conversations.contracts import (
    Answer,
    Attachment,
    ChannelConfig,
    Choice,
    Fetching,
    Invoice,
    Limit,
    OutboundReply,
    Outcome,
    Parsed,
    Rejected,
    ReplyBody,
    Uploading,
    WebhookRequest,
)
from conversations.errors import BadOutput, WrongSetting
from conversations.template_shapes import ListedTemplate


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """A credential of a channel. Without a required one, all its webhooks are answered 401."""

    name: str
    help: str
    required: bool = True
    rotates: bool = False  # `<name>_previous` is accepted as well
    generated: bool = False  # we make one up when none is given
    pattern: str = ""  # the whole value must match it
    random: bool = False  # one that can be guessed is refused


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """A setting of a channel that is not secret."""

    name: str
    help: str
    pattern: str = ".*"
    number: bool = False  # stored as an integer


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """A way in which a platform shows choices. In each number, 0 is no limit."""

    name: str
    most: int = 0  # choices in one message
    title_size: int = 0  # of each label, in ``text_unit``
    value_bytes: int = 0  # of a choice's id; a longer one goes as ``Choice.short``
    text_size: int = 0  # of the text above the choices, where it is less than the platform's own
    beside: frozenset[str] | None = None  # kinds of media in the same message; None: all


# Secrets that a channel of every platform may have, unless the platform declares one of that name.
BOT_SECRETS = tuple(
    Secret(name=name, help=help, required=False, rotates=True, pattern=WHSEC_PATTERN)
    for name, help in {
        "bot_secret": "whsec_ and base64 of 16 bytes or more; signs requests to an http bot and its late replies",
        "secret": "whsec_ and base64; stands in for a bot_secret that is not set",
    }.items()
)


class Unsendable(Exception):
    """Nothing that the platform takes can carry this reply."""


class NotRegistered(Exception):
    """The platform did not accept our webhook URL; the message says why."""


class NotListed(Exception):
    """The platform did not list its templates; the message says why."""


class Adapter(abc.ABC):
    """Facts as data, then the verbs. Satisfies ``conversations.contracts.Adapter``."""

    platform: ClassVar[str]
    secrets: ClassVar[Sequence[Secret]] = ()
    options: ClassVar[Sequence[Option]] = ()
    limits: ClassVar[Sequence[Limit]] = ()
    settle_ms: ClassVar[int] = 0  # a channel's default settle window
    text_size: ClassVar[int] = 0  # in `text_unit`; 0: no limit
    caption_size: ClassVar[int] = 0  # of the text beside media
    text_unit: ClassVar[cut.Unit] = cut.Unit.UTF16
    forms: ClassVar[Sequence[Form]] = (Form(name="buttons"),)  # the first that fits, else numbered text
    statuses: ClassVar[Sequence[str]] = ()  # what the platform reports of replies that it took
    shows_typing: ClassVar[bool] = False  # people see that an answer is being written
    window_seconds: ClassVar[float] = math.inf  # for so long after a person's message we may write
    # A message that is one of these words, in lower case, opts its sender out, or in again. None
    # where people can block us and the platform says so.
    opt_out_words: ClassVar[Collection[str]] = frozenset()
    opt_in_words: ClassVar[Collection[str]] = frozenset({"start", "unstop", "subscribe", "opt in", "opt-in", "optin"})
    key_life_seconds: ClassVar[float] = 0.0  # how long the platform knows an idempotency key
    reports_key: ClassVar[bool] = False  # its statuses name a reply by our key
    reports_delivery: ClassVar[bool] = False  # it delivers in any order, and its statuses say what was delivered
    keeps_files_seconds: ClassVar[float] = 0.0  # how long it knows a file by its id; 0: it takes no files
    read_timeout_seconds: ClassVar[float] = 30.0  # longest wait for the answer to a send
    shakes_hands: ClassVar[bool] = False  # the platform checks our URL by a GET
    channel_noun: ClassVar[str] = "account"  # what people call a channel here: number, page, workspace
    channel_ref_option: ClassVar[str] = ""  # the option that holds what `channel_ref` names; '': it has no apps
    template_option: ClassVar[str] = ""  # the option with the account whose templates it sends; '': it has none

    def __init_subclass__(cls) -> None:
        """Let a class with a ``verify`` of its own not inherit another's ``precheck``: they belong together."""
        if "verify" in vars(cls) and "precheck" not in vars(cls):
            cls.precheck = Adapter.precheck  # type: ignore[method-assign]

    def handshake(self, channel: ChannelConfig, request: WebhookRequest) -> Answer | None:
        """Return the answer to a GET that checks our URL; None if it is another GET."""
        return None

    def precheck(self, channel: ChannelConfig, headers: Mapping[str, str]) -> bool:
        """Return False if no body could make a request with these headers authentic.

        It is called before the body is read. Constant time, never raises.
        """
        return True

    @abc.abstractmethod
    def verify(self, channel: ChannelConfig, request: WebhookRequest) -> bool:
        """Return True if the platform sent these bytes. Constant time, never raises."""

    @abc.abstractmethod
    def parse(self, channel: ChannelConfig, request: WebhookRequest) -> list[Parsed]:
        """Return what a request holds, in its order. Pure; unreadable items become ``Unusable``."""

    def answer(self, channel: ChannelConfig, request: WebhookRequest) -> Answer:
        """Return the answer to an authentic request that is stored."""
        return Answer()

    def fetch(self, channel: ChannelConfig, file: Attachment, into: BinaryIO, most: int) -> Fetching:
        """Write a person's file into ``into``, ``most`` bytes of it. By default from its public URL.

        No credential goes to an address that a webhook chose.
        """
        return http.download(file.url, into, most) if file.url else Rejected(reason="it has no address")

    def split(self, body: ReplyBody) -> list[ReplyBody]:
        """Split a reply into parts that the platform accepts. Pure.

        A part with ``markdown`` has the same as plain ``text``, for timelines, and for senders and
        adapters that do not render. Raises ``BadOutput`` for an invoice that cannot be sent.
        """
        if body.invoice:
            self.check_invoice(body.invoice)
        if body.invoice or body.template:
            return [body]
        body = self._formed(body) if body.choices else body
        form = self.form(body.buttons)
        if body.media is None or form is None or form.beside is None or body.media.kind in form.beside:
            return self._shorter_text(body, form)
        return [ReplyBody(media=body.media), *self._shorter_text(msgspec.structs.replace(body, media=None), form)]

    def key_life(self, channel: ChannelConfig) -> float:
        """Return for how many seconds the platform recognises a repeated key; 0 without keys."""
        return self.key_life_seconds

    def upload(self, channel: ChannelConfig, file: Attachment, content: BinaryIO) -> Uploading | None:
        """Upload a file and return its id; None if ``send`` does it, with ``reply.content``.

        It is called only where ``keeps_files_seconds`` is set. ``content`` is the open file, to be read in
        pieces. Nothing is sent by it: any failure may be tried again.
        """
        return None

    @abc.abstractmethod
    def send(self, channel: ChannelConfig, reply: OutboundReply) -> Outcome:
        """Make one attempt; return its ending, see ``conversations.contracts.Outcome``."""

    def acknowledge(self, channel: ChannelConfig, entry_data: Mapping[str, Any]) -> None:
        """Do what is not a message, such as stopping a button's spinner. It may fail silently."""
        return

    def answer_checkout(self, channel: ChannelConfig, entry_data: Mapping[str, Any], refusal: str) -> bool:
        """Let a payment go on, or refuse it in the words of ``refusal``. Return True if that was taken.

        ``entry_data``: ``data`` of the entry CHECKOUT. The platform waits for seconds only. May raise.
        """
        return False

    def show_typing(self, channel: ChannelConfig, address: Mapping[str, Any], message_id: str) -> float:
        """Show the person that ``message_id`` was read, and that an answer is being written.

        Called when a turn takes longer than a second. Return for how many seconds it is shown; 0 if
        it is not, and then the turn does not ask again. It may fail.
        """
        return 0.0

    # ------------------------------------------------ for setting up a channel, and for tests

    def accepted_secrets(self) -> dict[str, Secret]:
        """Return the secrets that a channel takes, by the name of the setting.

        One that rotates has a second name, ``<name>_previous``, for its old value.
        """
        declared = {secret.name: secret for secret in self.secrets}
        declared |= {secret.name: secret for secret in BOT_SECRETS if secret.name not in declared}
        return {
            name: secret
            for secret in declared.values()
            for name in ((secret.name, f"{secret.name}_previous") if secret.rotates else (secret.name,))
        }

    def describe_credentials(self) -> dict[str, str]:
        """Return what each accepted secret is for, in words, by the name of the setting."""
        secrets = self.accepted_secrets().items()
        return {name: "until the rotation is over" if name != secret.name else secret.help for name, secret in secrets}

    def check_credential(self, name: str, value: str) -> None:
        """Raise ``WrongSetting`` if a credential cannot have this value; '' removes it.

        Every way to write credentials asks here. The previous value of a secret may be one that can
        be guessed: otherwise nobody could replace it without refusing webhooks meanwhile.
        """
        secret = self.accepted_secrets().get(name)
        if secret is None:
            raise WrongSetting(f"{self.platform} has no secret {name!r}; known: {', '.join(self.accepted_secrets())}")
        check_pattern(secret.pattern, name, value, secret.help)
        if secret.pattern == URL:
            check_url(value)
        if value and secret.pattern == WHSEC_PATTERN:
            _check_key(name, value)
        if value and secret.random and name == secret.name and crypto.is_guessable(value):
            raise WrongSetting(f"{name} can be guessed: leave it out, or make one of 32 random characters or more")

    def register(self, channel: ChannelConfig, url: str) -> dict[str, Any]:
        """Tell the platform our URL. Returns its answer, ``webhook``, and maybe ``options`` to keep."""
        raise NotRegistered(f"a webhook of {self.platform} is set where the account is managed, to {url}")

    def list_templates(self, channel: ChannelConfig) -> Iterator[list[ListedTemplate]]:
        """Yield the templates of the channel's account, page by page. Raises ``NotListed``."""
        raise NotListed(f"{self.platform} has no templates")

    def sign(self, channel: ChannelConfig, body: bytes) -> dict[str, str]:
        """Return the headers with which the platform would send ``body``.

        Raises ``LookupError`` when the secret is missing.
        """
        raise LookupError(f"{self.platform} has no webhooks")

    def renew(self, body: dict[str, Any]) -> None:
        """Replace the ids in a sample body by new ones, in place."""
        return

    def check_invoice(self, invoice: Invoice) -> None:
        """Raise ``BadOutput`` for an invoice that the platform would refuse; by default for all."""
        raise BadOutput(f"{self.platform} has no invoices")

    def render(self, runs: Runs) -> str:
        """Return the text that the platform shows, and counts, of Markdown. Plain by default."""
        return plain(runs)

    def rendered(self, body: ReplyBody) -> str:
        """Return the text to send: the bot's own, or its Markdown, rendered."""
        return self.render(read(body.markdown)) if body.markdown else body.text

    def caption_room(self, media: Attachment) -> int:
        """Return how much text may stand beside ``media``, in ``text_unit``."""
        return self.caption_size

    def form(self, choices: Sequence[Choice]) -> Form | None:
        """Return the form in which the platform shows these choices: the first that fits.

        None without choices, or if no form fits.
        """
        return next((form for form in self.forms if choices and self._fits(form, choices)), None)

    def _fits(self, form: Form, choices: Sequence[Choice]) -> bool:
        """Return True if neither the choices nor their labels are too many or too long for the form."""
        if form.most and len(choices) > form.most:
            return False
        return not form.title_size or all(cut.fits(each.title, form.title_size, self.text_unit) for each in choices)

    def _formed(self, body: ReplyBody) -> ReplyBody:
        """Number equal labels, and make numbered lines of choices that fit no form."""
        distinct = choices.with_distinct_titles(body.choices)
        if self.form(distinct):
            return msgspec.structs.replace(body, choices=distinct)
        if body.markdown:
            markdown = f"{body.markdown}\n\n{escaped(choices.as_text('', body.choices))}"
            return msgspec.structs.replace(body, markdown=markdown, numbered=True)
        return msgspec.structs.replace(body, text=choices.as_text(body.text, body.choices), numbered=True)

    def _shorter_text(self, body: ReplyBody, form: Form | None) -> list[ReplyBody]:
        """Split the text into parts that fit. The last part has choices and media.

        Text that is too long for the form of the choices, or for the media's caption, goes ahead.
        """
        *head, last = self._texts(body, self.text_size)
        if self.text_size and form and form.text_size:
            *more, last = self._texts(last, form.text_size)
            head += more
        media = body.media if self.text_size else None
        if media and not cut.fits(self.rendered(last), self.caption_room(media), self.text_unit):
            head, last = [*head, last], ReplyBody()
        return [*head, msgspec.structs.replace(body, text=last.text, markdown=last.markdown)]

    def _texts(self, body: ReplyBody, limit: int) -> list[ReplyBody]:
        """Return the text, or the Markdown, in parts of at most ``limit`` units; 0: no limit."""
        if body.markdown:
            parts = split_markdown(body.markdown, Room(limit, self.text_unit, self.render))
            return [ReplyBody(text=part.text, markdown=part.markdown) for part in parts]
        pieces = cut.split(body.text, limit, self.text_unit) if limit else [body.text]
        return [ReplyBody(text=piece) for piece in pieces]


def _check_key(name: str, secret: str) -> None:
    """Raise ``WrongSetting`` if a ``whsec_`` secret holds no key that signs."""
    try:
        webhook_key(secret)
    except ValueError as error:
        raise WrongSetting(f"{name}: {error}") from None
