from channels_ingest.adapters.telegram.adapter import Telegram

__all__ = ["Telegram"]
