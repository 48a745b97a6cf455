"""Where platforms and bots post. ASCII only, both with and without the last slash, never a redirect."""

from django.urls import re_path

from channels_ingest.webhooks import views

urlpatterns = [
    re_path(
        r"\Awebhooks/(?P<platform>[a-z_]{1,32})/(?P<public_id>[A-Za-z0-9_-]{1,64})/?\Z", views.webhook, name="webhook"
    ),
    re_path(r"\Abots/(?P<public_id>[A-Za-z0-9_-]{1,64})/replies/?\Z", views.late_reply, name="late-reply"),
]
