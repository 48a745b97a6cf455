"""Conversations: the list, what is stuck, and one conversation as a readable, live timeline."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib import admin
from django.db import models
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html

from conversations.desk import access, actions, answers, facts, reasons, search, timeline
from conversations.desk.admin import filters
from conversations.desk.admin.columns import column
from conversations.desk.admin.proxies import StuckConversation
from conversations.desk.admin.template_form import TemplateForm
from conversations.desk.admin.windows import Verb, Walk, Window, number_in
from conversations.desk.templatetags.desk import age, visible
from conversations.errors import CoreError
from conversations.media import serving
from conversations.media.files import Kept
from conversations.models import Contact, Conversation, Media
from conversations.postgres.storable_text import read_number

# Most conversations on the page of stuck ones. Larger: the page is slower.
STUCK = 200


class ConversationList(Walk):
    """Conversations with the reasons why they do not move, read in one query."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        explain(request, self.result_list)


def explain(request: HttpRequest, lanes: list[Any]) -> facts.Around:
    """Give each lane ``facts`` and ``reasons`` (why it does not move), read in one query for all.

    Returns what stops many lanes at once.
    """
    around = facts.look_around(access.channel_ids(request))
    found = facts.read([lane.pk for lane in lanes])
    now = timezone.now()
    for lane in lanes:
        lane.facts = found.get(lane.pk)
        lane.reasons = reasons.reasons(lane.facts, around, now) if lane.facts else []
    return around


def name_of(lane: Conversation) -> str:
    """Return the name under which staff know the person; else their id on the platform."""
    contact: Contact | None = lane.contact
    name = contact.name or contact.username or contact.phone if contact else ""
    return visible(name or lane.user or lane.chat)


class Lanes(Window):
    """The columns that both lists of conversations have."""

    list_display: Any = ("person", "reason", "where", "answers", "progress", "oldest")
    list_display_links = ("person",)
    list_select_related = ("contact", "channel")
    sortable_by = ()
    change_list_template = "admin/conversations/list.html"
    person = column("with", name_of)
    where = column("channel", lambda lane: lane.channel)
    oldest = column("oldest pending", lambda lane: age(lane.facts.oldest_pending_at) if lane.facts else "")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[Walk]:
        return ConversationList

    def note_row(self, request: HttpRequest, row: Any) -> None:
        actions.note_reading([row.pk], access.staff_of(request))

    def title_of(self, row: Any) -> str:
        return name_of(row)

    @admin.display(description="answers")
    def answers(self, lane: Any) -> str:
        if lane.mode == Conversation.Mode.HUMAN:
            return visible(lane.facts.assignee or "a person") if lane.facts else "a person"
        return "paused" if lane.paused_at else "bot"

    @admin.display(description="messages")
    def progress(self, lane: Conversation) -> str:
        pending = lane.last_sequence - lane.next_sequence + 1
        return f"{lane.last_sequence} ({pending} pending)" if pending else f"{lane.last_sequence}"

    @admin.display(description="where it stands")
    def reason(self, lane: Any) -> str:
        """Return the first reason; '' where nothing waits, so that the other rows stand out."""
        reason = lane.reasons[0] if lane.reasons else None
        if reason is None or reason.weight == "idle":
            return ""
        return format_html('<span class="why why-{}">{}</span>', reason.weight, visible(reason.text))


@admin.register(StuckConversation)
class Stuck(Lanes):
    """Conversations that need a person or are late, those first that wait longest."""

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_permission(request):
            return self.refuse(request, None, self.action)
        around = facts.look_around(access.channel_ids(request))
        ids = facts.find_stuck(access.channel_ids(request), around, STUCK)
        found = Conversation.objects.select_related("contact", "channel").in_bulk(ids)
        lanes: list[Any] = [found[pk] for pk in ids if pk in found]
        explain(request, lanes)
        for lane in lanes:
            lane.person = name_of(lane)
        words = {"title": "Stuck", "lanes": lanes, "around": around, "limit": STUCK}
        return self.show(request, None, "admin/conversations/stuck.html", words)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Redirect to the page of the conversation."""
        lane = self.find(request, object_id)
        return self.redirect(reverse("admin:conversations_conversation_change", args=[lane.pk]))


@admin.register(Conversation)
class Conversations(TemplateForm, Lanes):
    """The list, and the page of one conversation: why it does not move, timeline, verbs."""

    list_filter = (filters.ChannelFilter, filters.ModeFilter, filters.StuckFilter, filters.OldestPendingFilter)
    search_fields = ("contact__name",)  # shows the box; ``get_search_results`` answers it
    search_help_text = "Name, phone, username, chat, a platform's message id, or the trace of a log line"
    verbs = {
        verb: verb for verb in ("retry", "skip", "park", "take_over", "answer", "hand_back", "pause", "resume")
    } | {"wake": "wake_up", "opt_out": "set_opt_out", "opt_in": "set_opt_out"}

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet[Any], search_term: str
    ) -> tuple[models.QuerySet[Any], bool]:
        """Search by the indexes of ``search``; Django's LIKE would read whole tables."""
        if not search_term.strip():
            return queryset, False
        return queryset.filter(pk__in=search.find(search_term, access.channel_ids(request))), False

    # ------------------------------------------------------------ one conversation

    def get_urls(self) -> list[URLPattern]:
        live = path("<int:object_id>/live/", self.admin_site.admin_view(self.live), name=self._url_name("live"))
        file = path(
            "<int:object_id>/file/<uuid:file>/", self.admin_site.admin_view(self.file), name=self._url_name("file")
        )
        upload = path("<int:object_id>/upload/", self.admin_site.admin_view(self.upload), name=self._url_name("upload"))
        return [live, file, upload, *super().get_urls()]

    def file(self, request: HttpRequest, object_id: int, file: uuid.UUID) -> HttpResponseBase:
        """Return a file of this conversation to whoever may see the conversation."""
        lane = self.find(request, str(object_id))
        row = Media.objects.filter(pk=file, status=Media.Status.STORED).first()
        if row is None or not timeline.has_file(lane, row):
            raise Http404("no such file")
        return serving.respond(request, Kept(row.pk, row.channel_id, row.attempts), row.content_type, row.reference)

    def upload(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Keep a file, the body of the request, for an answer that names it. Return its id as JSON."""
        lane = self.find(request, str(object_id))
        if not access.may(request, "answer", self.tenants_of(request, lane)):
            return self.refuse(request, lane, "answer")
        try:
            kept = answers.keep_file(lane, access.staff_of(request), request, request.GET.get("name", ""))
        except CoreError as error:
            return JsonResponse({"error": str(error)}, status=415)
        return JsonResponse({"file": kept.media})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show one conversation.

        ``?before=N`` shows an older part of the timeline: the last messages numbered below N.
        """
        lane = self.find(request, object_id)
        older = read_number(request.GET.get("before", ""))
        # Read before the parts: the next live update then shows what changed in between.
        cursor = timeline.version(lane.pk)
        words = {
            "cursor": cursor,
            "live": reverse("admin:conversations_conversation_live", args=[lane.pk]),
            "upload": reverse("admin:conversations_conversation_upload", args=[lane.pk]),
        }
        return self.show(
            request, lane, "admin/conversations/conversation.html", {**words, **self.parts(request, lane, older)}
        )

    def live(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Return 304 where nothing changed since ``cursor``, else the page's parts as of now."""
        lane = self.find(request, str(object_id))
        cursor = timeline.version(lane.pk)
        if request.GET.get("cursor") == cursor:
            return HttpResponse(status=304)
        parts = {**self.parts(request, lane, None), **self.offers(request, lane), "row": lane}
        names = ("reasons", "timeline", "controls", "facts")
        html = {name: render_to_string(f"admin/conversations/_{name}.html", parts, request) for name in names}
        return JsonResponse({"cursor": cursor, "parts": html}, headers={"Cache-Control": "no-store"})

    def parts(self, request: HttpRequest, lane: Conversation, before: int | None) -> dict[str, Any]:
        """Return what the templates of the page's parts need, at first and at each renewal."""
        explain(request, [lane])
        human = lane.mode == Conversation.Mode.HUMAN
        return {
            "window": timeline.window(lane, before),
            "before": before,
            "state": None if before else timeline.state(lane.pk),
            "person": name_of(lane),
            "human": human,
            "hand": timeline.answered(lane.pk) if human else None,
            "seen": _shown(lane),
            "closed": lane.window_until is not None and lane.window_until <= timezone.now(),
            "do": {verb: self.address(verb, lane) for verb in (*self.verbs, "template")},
        }

    def buttons(self, request: HttpRequest, lane: Any) -> list[Verb]:
        """Return the verbs that fit the lane's state.

        Each carries the state that the page showed, so that it is refused if the lane
        moved.
        """
        seen = _shown(lane)
        names = [] if lane.mode == Conversation.Mode.HUMAN else ["take_over"]
        names += ["resume"] if lane.paused_at else ["pause"]
        names += ["opt_in"] if lane.opted_out_at or lane.no_marketing_since or lane.unreachable_since else ["opt_out"]
        if lane.next_sequence <= lane.last_sequence:
            names += ["retry", "skip"] if lane.blocked else ["retry", "skip", "park"]
        return [self._verb(name, lane, seen) for name in [*names, "wake"]]

    def _verb(self, name: str, lane: Any, seen: dict[str, int]) -> Verb:
        label, help, ask, must = WORDS[name]
        label = label.format(head=lane.next_sequence)
        address = self.address(name, lane)
        return Verb(name=name, label=label, help=help, ask=ask, must=must, address=address, hidden=seen)

    # ------------------------------------------------------------ verbs

    def do_wake(self, request: HttpRequest, lane: Conversation) -> str:
        actions.wake_up(lane.pk, access.staff_of(request))
        return "A worker will look at it now."

    def do_retry(self, request: HttpRequest, lane: Conversation) -> str:
        actions.retry(_seen(request, lane), access.staff_of(request))
        return "The message is tried again now, with all its attempts."

    def do_skip(self, request: HttpRequest, lane: Conversation) -> str:
        actions.skip(_seen(request, lane), access.staff_of(request), _required_note(request))
        return "Skipped; the next message is due."

    def do_park(self, request: HttpRequest, lane: Conversation) -> str:
        actions.park(_seen(request, lane), access.staff_of(request), _required_note(request))
        return "Parked; the next message is due."

    def do_take_over(self, request: HttpRequest, lane: Conversation) -> str:
        actions.take_over(_seen(request, lane), access.staff_of(request), request.POST.get("note", ""))
        return "You answer now. What the bot had not sent yet is a draft."

    def do_answer(self, request: HttpRequest, lane: Conversation) -> str:
        taking_over = "take_over" in request.POST
        text, files = request.POST.get("text", ""), request.POST.getlist("file")
        actions.answer(_seen(request, lane), access.staff_of(request), text, files, taking_over=taking_over)
        return "Your answer is on its way."

    def do_hand_back(self, request: HttpRequest, lane: Conversation) -> str:
        rest = request.POST.get("rest")
        if rest not in ("answered", "bot"):
            raise ValueError("please say what becomes of the messages that wait")
        skipped = actions.hand_back(_seen(request, lane), access.staff_of(request), skip_answered=rest == "answered")
        if not skipped:
            return "The bot answers again."
        return f"The bot answers again; answered messages that are skipped: {skipped}."

    def do_pause(self, request: HttpRequest, lane: Conversation) -> str:
        actions.pause(lane.pk, access.staff_of(request), request.POST.get("note", ""))
        return "The bot is paused here. Replies that are written still go out."

    def do_resume(self, request: HttpRequest, lane: Conversation) -> str:
        actions.resume(lane.pk, access.staff_of(request))
        return "The bot goes on here, in order."

    def do_opt_out(self, request: HttpRequest, lane: Conversation) -> str:
        actions.set_opt_out(lane.pk, access.staff_of(request), _required_note(request), out=True)
        return "Nothing is sent to this person any more. Replies are parked."

    def do_opt_in(self, request: HttpRequest, lane: Conversation) -> str:
        actions.set_opt_out(lane.pk, access.staff_of(request), _required_note(request), out=False)
        return "Messages go out again. Replies that were parked stay parked."


# The buttons: verb -> its label, what it does, the prompt of its note, whether a note is required.
WORDS: dict[str, tuple[str, str, str, bool]] = {
    "take_over": ("Take over", "You answer from now on. What the bot has not sent yet becomes a draft.", "why", False),
    "pause": ("Pause the bot here", "New messages wait. Replies that are written still go out.", "why", False),
    "resume": ("Resume the bot", "The bot handles what waited, in order.", "", False),
    "opt_out": ("Send no more", "The person asked for that. Nothing is sent until they or you allow it.", "why", True),
    "opt_in": ("Allow messages again", "Ends an opt-out, or a block. Parked replies stay parked.", "why", True),
    "retry": ("Retry message {head}", "The bot tries it again now, with all its attempts.", "", False),
    "skip": ("Skip message {head}", "The bot never sees it; the next message follows.", "why it is skipped", True),
    "park": ("Park message {head}", "It is set aside for later; the next message follows.", "why it is parked", True),
    "wake": ("Wake", "A worker looks at this conversation now. Retry times stay as they are.", "", False),
}


def _shown(lane: Conversation) -> dict[str, int]:
    """Return the state of the lane that the page's forms send back, see ``_seen``."""
    return {"epoch": lane.epoch, "next_sequence": lane.next_sequence, "last_sequence": lane.last_sequence}


def _seen(request: HttpRequest, lane: Conversation) -> actions.Seen:
    """Return the lane's state that the page showed, and not its present one.

    The verb is refused if they differ: nobody should act on what they did not see. Only handing
    back reads ``last_sequence``, so other forms need not send it. Raises ``ValueError`` where
    the form lacks the others.
    """
    epoch, next_sequence = number_in(request, "epoch"), number_in(request, "next_sequence")
    last_sequence = number_in(request, "last_sequence") if "last_sequence" in request.POST else 0
    return actions.Seen(conversation=lane.pk, epoch=epoch, next_sequence=next_sequence, last_sequence=last_sequence)


def _required_note(request: HttpRequest) -> str:
    """Return the note of the form.

    Raises ``ValueError`` if it is empty: this verb must be explained.
    """
    note = request.POST.get("note", "").strip()
    if not note:
        raise ValueError("please say why")
    return note
