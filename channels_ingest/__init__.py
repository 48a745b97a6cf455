"""The edge: HTTP in, HTTP out. It knows platforms and no queue.

**Invariant:** an authentic request below the size cap is stored, quarantined or noted before
its success code; when the fault is ours it is answered 503, so that the platform comes again.

    urls.py           /webhooks/<platform>/<public id>/, with or without the last slash
    file_links.py     signed addresses of files, for the chat page and the generic channel
    webhooks/         in: verify, parse, store, answer
    adapters/         a platform a file, in and out together
    outbound/         out: one call, and the only map from HTTP status to outcome
    formats/          JSON, signatures and long text, as several adapters need them
    http_bots/        bots in any language: a signed POST of the turn, replies in the answer
    bots.py           the bot named http
    webchat/          our own chat page and widget
    channel_setup.py  what a person sets becomes a checked row
    app_setup.py      the same for apps: secrets that several channels share
    checks.py         warns of channels that lack settings
    fake_platform/    a double of the platforms, for tests and to try everything
    management/       `manage.py` commands
    apps.py           the edge as a Django app

Nothing here imports Celery or Redis. Storing is one call, ``conversations.storing.intake.accept``.
"""
