"""Every message that we answer 2xx is stored durably first, handled exactly once, in order, and answered in order.

The life of a message, a folder per step:

    storing/          1  a webhook's entries become numbered rows: dedupe, number, COMMIT, wake
    waking/           2  a hint, through Celery, that conversations have work
    handling/         3  hold the lane -> next message -> bot -> COMMIT: state, replies, mark, next number
    delivering/       4  in order and rate limited: COMMIT intent -> call the platform -> COMMIT result
    sweeping/         5  finds whatever stayed behind, from Postgres alone

For bots and adapters:

    registry.py       the one place where the core meets bots, adapters and channels
    turns.py          what a bot holds
    choices.py        what a bot may offer, and which choice a message means
    template_shapes.py  what a platform approved of a template, and a bot's values in it
    templates.py      the templates of channels, for bots
    contracts.py      the types shared with adapters and bots
    errors.py         errors that cross a module's border
    bots.py           the bot that ships: echo

What the steps stand on:

    reports/          what is said about our messages: statuses, templates, wishes
    acts/             what a platform is told beside messages: typing, presses, checkouts
    media/            files that people send: fetched beside the lane, kept, shown, deleted
    lanes/            what handling and delivering share of a lane: its lock, pauses
    postgres/         connections, statements, and many callers in one transaction
    models/           the tables
    migrations/       how they came to be
    runtime.py        what a process has one of: writer, reader, what its modules remember
    installation.py   whose database this is
    crypto.py         secrets at rest, keyed hashes
    concurrency.py    vital threads, batching threads, timers, answers kept for a while
    processor.py      measures whether processor time is left
    telemetry/        logs and error reports, without what people wrote
    failpoints.py     where tests stop, kill or break a process

Around them:

    workers/          the life of a worker process
    desk/             what staff see and do
    operating/        health, metrics, what must hold before a start, upkeep
    management/       `manage.py` commands
    tasks.py          every Celery entry point
    urls.py           /healthz/, /metrics/
    apps.py           the core as a Django app
"""
