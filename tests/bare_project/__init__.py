"""The sample project without the desk and without the web chat: an import of either fails, in every process."""

import sys

LEFT_OUT = ("conversations.desk", "channels_ingest.webchat")

for name in LEFT_OUT:
    sys.modules[name] = None  # type: ignore[assignment]
