"""Sweeping, step 5: finds whatever stayed behind, from Postgres alone.

sweeper.py         one round: the dead, what is due, probes, timers, upkeep
heartbeats.py      which workers' heartbeats have stopped
dead_workers.py    what a dead worker leaves behind
claimed_stream.py  settles the replies that a dead sender left in ``sending``
timers.py          due timers become messages of their lanes
maintenance.py     partitions and retention
"""
