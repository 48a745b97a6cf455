"""The sample project's URLs, and a page that sleeps."""

from __future__ import annotations

import time

from django.http import HttpRequest, HttpResponse
from django.urls import include, path


def sleep(request: HttpRequest) -> HttpResponse:
    time.sleep(float(request.GET["seconds"]))
    return HttpResponse("good morning")


urlpatterns = [path("sleep/", sleep), path("", include("botproject.urls"))]
