"""An app with bots for tests, installed by ``EXTRA_APPS=tests.bots_app`` where ``LOCAL`` is set."""
