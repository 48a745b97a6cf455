from django.apps import AppConfig


class ChannelsIngest(AppConfig):
    name = "channels_ingest"
    verbose_name = "Channels"
