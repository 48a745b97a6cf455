"""The upper limit: a Django view that reads the body and answers, without middleware or database."""

from __future__ import annotations

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

settings.configure(SECRET_KEY="bench", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=[])


@csrf_exempt
def nothing(request: HttpRequest) -> HttpResponse:
    len(request.body)
    return HttpResponse(headers={"Content-Length": "0"})


urlpatterns = [path("nothing/", nothing)]
application = get_wsgi_application()
