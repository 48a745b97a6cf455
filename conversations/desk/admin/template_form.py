"""The page on which staff fill in a template and send it, as an answer or in place of a reply."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path

from conversations import templates
from conversations.desk import access, actions, answers
from conversations.desk.admin.windows import Window, number_in
from conversations.errors import CoreError
from conversations.models import Conversation, Reply, Template
from conversations.postgres.storable_text import read_number
from conversations.template_shapes import BUTTON, Slot, TemplateShape, slots

OFFERED = 1000  # most templates of the menu; larger: a longer page, smaller: some cannot be chosen
VALUE = "value "  # before a variable's name: the name of its field


class TemplateForm(Window):
    """Adds the page to those of a conversation."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.template)
        return [path("<int:object_id>/template/", view, name=self._url_name("template")), *super().get_urls()]

    def template(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Show a template's fields beside how it looks on a phone; as a POST, send it.

        ``?template=``: the id of the chosen one, by default the first. ``?instead=``: of the reply
        that it replaces.
        """
        lane = self.find(request, str(object_id))
        if not access.may(request, "answer", self.tenants_of(request, lane)):
            return self.refuse(request, lane, "answer")
        offered = _find_offered(lane)
        wanted = read_number(request.GET.get("template", ""))
        first = offered[0] if offered and wanted is None and request.method == "GET" else None
        chosen = next((row for row in offered if row.pk == wanted), first)
        replaced = read_number(request.GET.get("instead", "")) or 0
        instead = Reply.objects.filter(conversation=lane, pk=replaced).first()
        if request.method == "POST":
            try:
                _send(request, lane, chosen, instead)
            except (CoreError, ValueError) as error:
                messages.error(request, str(error)[:1].upper() + str(error)[1:])
            else:
                messages.success(request, "The template is on its way.")
                return self.redirect(self.page_of(lane))
        shape = msgspec.convert(chosen.shape, TemplateShape) if chosen else TemplateShape()
        fields = list(_fields(shape, request))
        words = {"offered": offered, "chosen": chosen, "instead": instead, "shape": shape, "fields": fields}
        upload = self.address("upload", lane)
        return self.show(request, lane, "admin/conversations/send_template.html", {**words, "upload": upload})


def _find_offered(lane: Conversation) -> list[Template]:
    """Return the templates of the lane's channel that can be filled and sent."""
    rows = Template.objects.filter(channel=lane.channel_id, status__in=templates.SENDABLE)
    return list(rows.exclude(shape__has_key="odd").order_by("name", "language").defer("shape")[:OFFERED])


def _fields(shape: TemplateShape, request: HttpRequest) -> Iterator[tuple[str, Slot, str, str]]:
    """Yield the name, the slot, the meaning and what was typed of each value that must be there."""
    for name, slot in slots(shape).items():
        button = shape.buttons[int(name.removeprefix(BUTTON)) - 1] if name.startswith(BUTTON) else None
        if slot.must:
            yield name, slot, button.text if button else slot.media, request.POST.get(VALUE + name, "")


def _send(request: HttpRequest, lane: Conversation, chosen: Template | None, instead: Reply | None) -> None:
    """Send the chosen template with the form's values. Raises ``CoreError`` or ``ValueError``."""
    if chosen is None:
        raise ValueError("this template cannot be sent any more; please choose another")
    given = {name.removeprefix(VALUE): request.POST.get(name, "") for name in request.POST if name.startswith(VALUE)}
    filled = answers.fill(lane.pk, chosen, given, request.POST.getlist("file"))
    staff = access.staff_of(request)
    if instead:
        actions.resend_reply(instead, staff, filled)
        return
    shown = {name: number_in(request, name) for name in ("epoch", "last_reply_sequence")}
    seen = actions.Seen(conversation=lane.pk, next_sequence=lane.next_sequence, **shown)
    actions.answer(seen, staff, filled, taking_over=lane.mode == Conversation.Mode.BOT)
