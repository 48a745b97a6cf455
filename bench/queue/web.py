"""The webhook: defer a job and answer."""

from __future__ import annotations

import json

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from bench.queue import jobs

settings.configure(SECRET_KEY="bench", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=[])
jobs.app.open()


@csrf_exempt
def webhook(request: HttpRequest) -> HttpResponse:
    message = json.loads(request.body)["message"]
    user = message["from"]["id"]
    jobs.answer.configure(lock=str(user)).defer(user=user, text=message["text"])
    return HttpResponse(headers={"Content-Length": "0"})


urlpatterns = [path("webhook/", webhook)]
application = get_wsgi_application()
