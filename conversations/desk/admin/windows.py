"""What every list and page of the admin shares: read-only, of this person's tenants, fast at any size.

Lists are walked by id, newest first, without counting. Pages are rows of names and values; what may be
done is a verb of ``conversations.desk.actions``, posted to an address of its own.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db import models
from django.db.models.expressions import Combinable
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone

from conversations.desk import access
from conversations.desk.templatetags.desk import visible
from conversations.errors import CoreError

PER_PAGE = 50
BEFORE = "before"  # the id that a list goes on from

Doer = Callable[[HttpRequest, Any], str]


class OnePage(Paginator):
    """Nothing is counted: a list knows only whether there is more."""

    count = 0
    num_pages = 1


class Walk(ChangeList):
    """A list by descending id; ``older`` is the id that the next page goes on from, or None."""

    older: int | None = None

    def get_filters_params(self, params: Any = None) -> dict[str, Any]:
        return {name: value for name, value in super().get_filters_params(params).items() if name != BEFORE}

    def get_ordering(self, request: HttpRequest, queryset: Any) -> list[str | Combinable]:
        return ["-pk"]

    def get_results(self, request: HttpRequest) -> None:
        rows = self.queryset
        before = request.GET.get(BEFORE, "")
        if before.isascii() and before.isdigit() and len(before) < 19:
            rows = rows.filter(pk__lt=int(before))
        found = list(rows[: PER_PAGE + 1])
        self.result_list = found[:PER_PAGE]
        self.older = self.result_list[-1].pk if len(found) > PER_PAGE else None
        self.result_count = len(self.result_list)
        self.full_result_count = self.result_count  # equal: the page says nothing of numbers
        self.show_full_result_count = self.can_show_all = self.multi_page = False
        self.show_admin_actions = False
        self.paginator = OnePage(self.result_list, PER_PAGE)

    @property
    def older_address(self) -> str:
        return self.get_query_string({BEFORE: self.older})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verb:
    """A button. ``ask``: a note goes with it (shown in its field); ``hidden``: what the page has seen."""

    name: str
    label: str
    address: str
    ask: str = ""
    must: bool = False
    danger: bool = False
    hidden: dict[str, Any] = dataclasses.field(default_factory=dict)


class Window(admin.ModelAdmin):
    """A list and a page per row; nothing is changed by editing."""

    channel_path: ClassVar[str] = "channel_id"  # from a row to its channel
    everybody: ClassVar[bool] = True  # False: superusers only
    verbs: ClassVar[dict[str, str]] = {}  # address -> name of a method (request, row) -> what was done
    shown: ClassVar[Sequence[str]] = ()  # methods or fields of the page, in order
    page_template = "admin/conversations/page.html"
    change_list_template = "admin/conversations/list.html"
    actions = None
    list_per_page = PER_PAGE
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = OnePage

    # ------------------------------------------------------------ who may see it

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return access.scoped(super().get_queryset(request), request, self.channel_path)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return access.may_enter(request) and (self.everybody or access.is_superuser(request))

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    # ------------------------------------------------------------ lists

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[Walk]:
        return Walk

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Lists are narrowed by their filters alone, never by a lookup in the address."""
        return lookup in {getattr(one, "parameter_name", "") for one in self.list_filter}

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        words = {"title": str(self.opts.verbose_name_plural).capitalize(), **(extra_context or {})}
        return super().changelist_view(request, words)

    # ------------------------------------------------------------ one row

    def find(self, request: HttpRequest, object_id: str) -> Any:
        """The row, if it is there and this person may see it."""
        if not self.has_view_permission(request):
            raise Http404
        row = self.get_object(request, object_id)
        if row is None:
            raise Http404(f"no such {self.opts.verbose_name}")
        return row

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        row = self.find(request, object_id)
        return self.show(
            request, row, self.page_template, {"fields": list(self.fields_of(row)), **(extra_context or {})}
        )

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """What was done stands in the audit."""
        raise Http404

    def show(self, request: HttpRequest, row: Any, template: str, context: dict[str, Any]) -> HttpResponse:
        words = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "row": row,
            "title": self.title_of(row),
            "verbs": self.buttons(request, row),
            **context,
        }
        return TemplateResponse(request, template, words)

    def redirect(self, address: str) -> HttpResponse:
        return HttpResponseRedirect(address)

    def title_of(self, row: Any) -> str:
        return visible(row)

    def fields_of(self, row: Any) -> Iterable[tuple[str, str, str]]:
        """Name, value, and where the value leads ('' for nowhere)."""
        for name in self.shown:
            method = getattr(self, name, None)
            value = method(row) if method else getattr(row, name)
            label = getattr(method, "short_description", "") or name.removesuffix("_id").removesuffix("_at")
            yield label.replace("_", " "), in_words(value), self._address_of(value)

    def _address_of(self, value: Any) -> str:
        known = isinstance(value, models.Model) and type(value) in self.admin_site._registry
        return reverse(f"admin:conversations_{value._meta.model_name}_change", args=[value.pk]) if known else ""

    def buttons(self, request: HttpRequest, row: Any) -> list[Verb]:
        """What may be done to ``row`` now."""
        return []

    # ------------------------------------------------------------ verbs

    def get_urls(self) -> list[URLPattern]:
        own = [
            path(f"<path:object_id>/do/{verb}/", self.admin_site.admin_view(self._doing(method)), name=self._name(verb))
            for verb, method in self.verbs.items()
        ]
        return own + super().get_urls()

    def address(self, verb: str, row: Any) -> str:
        return reverse(f"admin:{self._name(verb)}", args=[row.pk])

    def page_of(self, row: Any) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", args=[row.pk])

    def list_address(self) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")

    def after(self, request: HttpRequest, row: Any) -> str:
        """Where a verb leads."""
        return self.page_of(row)

    def _name(self, verb: str) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{verb}"

    def _doing(self, method: str) -> Callable[..., HttpResponse]:
        def view(request: HttpRequest, object_id: str) -> HttpResponse:
            if request.method != "POST":
                return HttpResponseNotAllowed(["POST"])
            row = self.find(request, object_id)
            self._do(request, row, getattr(self, method))
            return HttpResponseRedirect(self.after(request, row))

        return view

    def _do(self, request: HttpRequest, row: Any, act: Doer) -> None:
        try:
            messages.success(request, act(request, row))
        except (CoreError, ValueError) as error:
            messages.error(request, str(error)[:1].upper() + str(error)[1:])


def in_words(value: Any) -> str:
    """A value of a row as people read it."""
    match value:
        case None | "":
            return "—"
        case bool():
            return "yes" if value else "no"
        case dt.datetime():
            return timezone.localtime(value).strftime("%Y-%m-%d %H:%M:%S")
        case dict() | list():
            return json.dumps(value, ensure_ascii=False, indent=2) if value else "—"
    return visible(value)


def number_in(request: HttpRequest, name: str) -> int:
    """A number that the page has seen and gives back. Raises ``ValueError``."""
    return int(request.POST.get(name, ""))
