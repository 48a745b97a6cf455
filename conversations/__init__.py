"""Every message that we answer 2xx is stored durably first, handled exactly once, in order, and answered in order.

The flow, a file per step:

    intake      dedupe, number per user, COMMIT (many requests in one), wake
    wake        tell a worker, through Celery, that conversations have work: only a hint
    tasks       every Celery entry point
    lock        hold a conversation's lane, extend, release
    processing  next message -> bot -> COMMIT: state, replies, mark, next number
    outbox      per user, in order, rate limited: COMMIT intent -> send -> COMMIT result
    sweeper     finds whatever stayed behind, from Postgres alone

What they stand on: ``contracts`` (words shared with adapters and bots), ``registry`` (adapters, bots,
channels), ``committer`` (many callers, one transaction), ``database``, ``limiter``, ``models``, ``errors``;
where ``SPOOL_DIR`` is set, ``spool`` and ``drain`` (what is accepted while Postgres is away).
"""
