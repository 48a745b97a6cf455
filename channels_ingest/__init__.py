"""The edge: HTTP in, HTTP out. It knows platforms and no queue.

**Invariant:** an authentic request below the size cap is stored, quarantined or noted before
its success code; when the fault is ours it is answered 503, so that the platform comes again.

In, in flow order:

    urls.py         /webhooks/<platform>/<public id>/, with or without the last slash
    views.py        verify, parse, store, answer
    body.py         the raw body under the cap, chunked or not
    signatures.py   constant-time checks over raw bytes
    strict_json.py  the one reader of foreign JSON
    strangers.py    how often an address failed to prove who it is
    adapters/       one file per platform, in and out together; base.py is what they share

Out:

    http.py         one outbound call, and the only map from HTTP status to outcome
    text.py         long text cut by the platform's own unit, never inside a grapheme
    http_bot.py     bots in any language: a signed POST of the turn, replies in the answer

Beside the flow: ``channels.py`` turns a person's settings into a channel (``management/commands``), and
``webchat/`` is our own chat page and widget.

Nothing here imports Celery or Redis. Storing is one call, ``conversations.storing.intake.accept``.
"""
