"""Sweeping, step 5: finds whatever was left behind, from Postgres alone.

sweeper.py       one round: the dead, what is due, probes, timers, upkeep
heartbeats.py    which workers' heartbeats have stopped
dead_workers.py  recovers what a dead worker left behind
timers.py        due timers become messages of their lanes
"""
