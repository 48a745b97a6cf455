"""What every list and page of the admin shares: read-only, limited to this person's tenants.

A list is read by id, newest first, without counting, so that it is fast at any size. A page is a
table of names and values. Changes are verbs of ``conversations.desk.actions``: each has a button
and an address of its own, and asks ``access`` before it runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db import models
from django.db.models.expressions import Combinable
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from conversations.desk import access, actions
from conversations.desk.templatetags.desk import in_words, visible
from conversations.errors import CoreError
from conversations.postgres.storable_text import read_number

PER_PAGE = 50  # rows of a list's page; larger: slower pages, smaller: more clicks
BEFORE = "before"  # query parameter: the list goes on below this id


class OnePage(Paginator):
    """A paginator that never counts, since counting reads a whole table.

    A list knows only whether there is more.
    """

    count = 0
    num_pages = 1


class Walk(ChangeList):
    """A list by descending id.

    ``older`` is the id below which the next page begins, None on the last page.
    """

    older: int | None = None

    def get_filters_params(self, params: Any = None) -> dict[str, Any]:
        """Leave out ``before``, which Django would take for a filter."""
        return {name: value for name, value in super().get_filters_params(params).items() if name != BEFORE}

    def get_ordering(self, request: HttpRequest, queryset: Any) -> list[str | Combinable]:
        return ["-pk"]

    def get_results(self, request: HttpRequest) -> None:
        """Read one row more than a page shows: it tells whether there is an older page."""
        rows = self.queryset
        before = read_number(request.GET.get(BEFORE, ""))
        if before is not None:
            rows = rows.filter(pk__lt=before)
        found = list(rows[: PER_PAGE + 1])
        self.result_list = found[:PER_PAGE]
        self.older = self.result_list[-1].pk if len(found) > PER_PAGE else None
        self.result_count = len(self.result_list)
        self.full_result_count = self.result_count  # equal, so that the page shows no totals
        self.show_full_result_count = self.can_show_all = self.multi_page = False
        self.show_admin_actions = False
        self.paginator = OnePage(self.result_list, PER_PAGE)

    @property
    def older_address(self) -> str:
        return self.get_query_string({BEFORE: self.older})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verb:
    """A button.

    ``help`` says what it does, ``ask`` is the prompt of its note, and ``hidden`` are values
    that the page showed and its form sends back.
    """

    name: str
    label: str
    address: str
    help: str = ""
    ask: str = ""
    must: bool = False  # the note is required
    hidden: dict[str, Any] = dataclasses.field(default_factory=dict)


class Window(admin.ModelAdmin):
    """A list, and a page per row. Rows are never edited: the page's verbs change them."""

    action: ClassVar[str] = "see"  # the action of ``access.LEAST`` that opens the list and its pages
    channel_path: ClassVar[str] = "channel_id"  # lookup from a row to its channel's id; '' where there is none
    verbs: ClassVar[dict[str, str]] = {}  # address -> action; method do_<address> runs it and returns a sentence
    shown: ClassVar[Sequence[str]] = ()  # methods or fields that the page shows, in order
    page_template = "admin/conversations/page.html"
    change_list_template = "admin/conversations/list.html"
    actions = None
    list_per_page = PER_PAGE
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = OnePage

    # ------------------------------------------------------------ roles

    def tenants_of(self, request: HttpRequest, row: Any) -> Collection[int]:
        """Return the tenants that ``row`` concerns.

        A verb on it needs the verb's role in every one.
        """
        if not self.channel_path:
            return ()
        channel = row
        for name in self.channel_path.split("__"):
            channel = getattr(channel, name)
        return access.tenants_of(request, channel)

    def offers(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return the actions that this person may do here, and the buttons of those."""
        if row is None:
            return {"may": frozenset(), "verbs": []}
        may = access.allowed(request, self.tenants_of(request, row))
        return {"may": may, "verbs": [verb for verb in self.buttons(request, row) if self.verbs[verb.name] in may]}

    def refuse(self, request: HttpRequest, row: Any, action: str) -> HttpResponse:
        """Return a 403 that names the role that is missing.

        It calls the base class's ``show``, because those of subclasses need a row.
        """
        mine = access.highest_role(request) if row is None else access.role(request, self.tenants_of(request, row))
        words = {"title": "Not allowed", "needed": access.LEAST[action], "mine": mine}
        response = Window.show(self, request, None, "admin/conversations/refused.html", words)
        response.status_code = 403
        return response

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return access.scoped(super().get_queryset(request), request, self.channel_path)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return access.may_enter(request, self.action)

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
        """Allow only our filters' parameters.

        A lookup such as ``?contact__phone=`` could probe what a list does not show.
        """
        return lookup in {getattr(one, "parameter_name", "") for one in self.list_filter}

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_permission(request):
            return self.refuse(request, None, self.action)
        words = {"title": str(self.opts.verbose_name_plural).capitalize(), **(extra_context or {})}
        response = super().changelist_view(request, words)
        found = getattr(response, "context_data", {}).get("cl")
        if found is not None:
            self._note_list(request, found)
        return response

    def _note_list(self, request: HttpRequest, found: ChangeList) -> None:
        """Audit what this person sought, and that they read the rows of this page of the list."""
        if found.query.strip():
            listed = str(self.opts.verbose_name_plural)
            tenant = access.only_tenant(request)
            actions.note_page(access.staff_of(request), "search", listed, tenant=tenant, reason=found.query)
        if found.result_list:
            self.note_list(request, list(found.result_list))

    def note_list(self, request: HttpRequest, rows: Sequence[Any]) -> None:
        """Audit that this person read ``rows`` in the list. For lists that show people's words."""

    def note_row(self, request: HttpRequest, row: Any) -> None:
        """Audit that this person read ``row``. For pages that show people's words."""

    # ------------------------------------------------------------ one row

    def find(self, request: HttpRequest, object_id: str) -> Any:
        """Return the row, and audit that this person read it.

        Raises ``Http404`` where it does not exist or this person may not see it: both look
        the same.
        """
        if not self.has_view_permission(request):
            raise Http404
        row = self.get_object(request, object_id)
        if row is None:
            raise Http404(f"no such {self.opts.verbose_name}")
        self.note_row(request, row)
        return row

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the row as a table of names and values, without Django's form."""
        row = self.find(request, object_id)
        return self.show(
            request, row, self.page_template, {"fields": list(self.fields_of(row)), **(extra_context or {})}
        )

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Raise ``Http404``: the audit has the history."""
        raise Http404

    def show(self, request: HttpRequest, row: Any, template: str, context: dict[str, Any]) -> HttpResponse:
        """Render ``template`` with what every page needs: menu, title, this person's buttons."""
        words = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "row": row,
            "title": "" if row is None else self.title_of(row),
            **self.offers(request, row),
            **context,
        }
        return TemplateResponse(request, template, words)

    def redirect(self, address: str) -> HttpResponse:
        return HttpResponseRedirect(address)

    def title_of(self, row: Any) -> str:
        return visible(row)

    def fields_of(self, row: Any) -> Iterable[tuple[str, str, str]]:
        """Yield the name, the value and the link ('' for none) of each line of the page."""
        for name in self.shown:
            method = getattr(self, name, None)
            value = method(row) if method else getattr(row, name)
            label = getattr(method, "short_description", "") or name.removesuffix("_id").removesuffix("_at")
            yield label.replace("_", " "), in_words(value), self._address_of(value)

    def _address_of(self, value: Any) -> str:
        """Return the address of the page of a value if it is a row with a page, else ''."""
        known = isinstance(value, models.Model) and type(value) in self.admin_site._registry
        return reverse(f"admin:conversations_{value._meta.model_name}_change", args=[value.pk]) if known else ""

    def buttons(self, request: HttpRequest, row: Any) -> list[Verb]:
        """Return the verbs that the state of ``row`` allows now, whoever asks."""
        return []

    # ------------------------------------------------------------ verbs

    def get_urls(self) -> list[URLPattern]:
        """Add an address for each verb, to which its button posts."""
        own = [
            path(
                f"<path:object_id>/do/{verb}/",
                self.admin_site.admin_view(self._view_of(verb, action)),
                name=self._url_name(verb),
            )
            for verb, action in self.verbs.items()
        ]
        return own + super().get_urls()

    def address(self, verb: str, row: Any) -> str:
        """Return the address to which the button of a verb posts."""
        return reverse(f"admin:{self._url_name(verb)}", args=[row.pk])

    def page_of(self, row: Any) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", args=[row.pk])

    def list_address(self) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")

    def after(self, request: HttpRequest, row: Any) -> str:
        """Return the address of the page that follows a verb."""
        return self.page_of(row)

    def _url_name(self, verb: str) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{verb}"

    def _view_of(self, verb: str, action: str) -> Callable[..., HttpResponse]:
        """Return the view that runs one verb if this person may do ``action``, then leads back.

        A refusal of the verb becomes a message on the page that follows.
        """
        act: Callable[[HttpRequest, Any], str] = getattr(self, f"do_{verb}")

        def view(request: HttpRequest, object_id: str) -> HttpResponse:
            if request.method != "POST":
                return HttpResponseNotAllowed(["POST"])
            row = self.find(request, object_id)
            if not access.may(request, action, self.tenants_of(request, row)):
                return self.refuse(request, row, action)
            try:
                messages.success(request, act(request, row))
            except (CoreError, ValueError) as error:
                messages.error(request, str(error)[:1].upper() + str(error)[1:])
            return HttpResponseRedirect(self.after(request, row))

        return view


class Unlisted(Window):
    """Pages of single rows with their verbs, and no list, because there are millions of rows.

    Whoever opens the list is led to the address named ``listed``.
    """

    listed: ClassVar[str]

    def get_model_perms(self, request: HttpRequest) -> dict[str, bool]:
        """Keep the rows out of the menu."""
        return {}

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_permission(request):
            return self.refuse(request, None, self.action)
        return HttpResponseRedirect(reverse(self.listed))


def number_in(request: HttpRequest, name: str) -> int:
    """Return a number that a form of the page sent back. Raises ``ValueError``."""
    number = read_number(request.POST.get(name, ""))
    if number is None:
        raise ValueError("the form does not say what the page showed; load it again")
    return number
