from django.apps import AppConfig


class ChannelsIngest(AppConfig):
    name = "channels_ingest"
    verbose_name = "Channels"

    def ready(self) -> None:
        from channels_ingest import checks  # noqa: F401  (registers itself)
