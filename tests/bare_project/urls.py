from django.urls import include, path

urlpatterns = [path("", include("channels_ingest.urls")), path("", include("conversations.urls"))]
