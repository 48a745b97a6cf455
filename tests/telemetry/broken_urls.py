"""A view that raises with what it was given."""

from django.http import HttpRequest, HttpResponse
from django.urls import path


def broken(request: HttpRequest, token: str) -> HttpResponse:
    raise ValueError(token)


urlpatterns = [path("broken/<str:token>/", broken)]
