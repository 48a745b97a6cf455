"""Where platforms and bots post, and the addresses of files.

ASCII only, with or without the last slash, never a redirect."""

from django.urls import re_path

from channels_ingest.file_links import give
from channels_ingest.http_bots.views import late_reply
from channels_ingest.webhooks.views import webhook

urlpatterns = [
    re_path(r"\Awebhooks/(?P<platform>[a-z_]{1,32})/(?P<public_id>[A-Za-z0-9_-]{1,64})/?\Z", webhook, name="webhook"),
    re_path(r"\Abots/(?P<public_id>[A-Za-z0-9_-]{1,64})/replies/?\Z", late_reply, name="late-reply"),
    re_path(r"^files/(?P<public_id>[A-Za-z0-9_-]{1,64})/?\Z", give, name="file"),
]
