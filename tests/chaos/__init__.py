"""The fault and order checker: load, faults and a fake platform around the real processes, then a judgement.

    generator   people who write, as platforms deliver it: copies, retries, disorder, garbage
    cluster     two web processes, two hosts of workers, Postgres, Valkey, the fake platform; what dies is started again
    proxy       TCP links between them that can be cut, slowed, or made to swallow one answer
    faults      what goes wrong, by name
    platform    the chat platforms: what they accepted, refused, forgot
    bots        a bot whose state and replies carry a hash chain
    history     what was seen, one line each
    invariants  what must hold, as functions from history, database and platform log to violations
    run         one run: start, load, faults, drain, judge, write down

``make chaos-smoke``, ``make chaos``, ``make chaos FAULT=F6 SEED=1``; see README.md here.
"""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "botproject.settings")  # its bots and checks import the core
