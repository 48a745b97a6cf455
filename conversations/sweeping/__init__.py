"""Sweeping, step 5: finds whatever stayed behind, from Postgres alone.

sweeper.py       one round: the dead, what is due, probes, timers, upkeep
dead_workers.py  what a dead worker leaves behind
maintenance.py   partitions and retention
"""
