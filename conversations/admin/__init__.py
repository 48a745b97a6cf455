from conversations.admin import proxies  # noqa: F401
