"""What handling and delivering share of a lane.

lock.py    the Redis lock of a lane: hold, extend, release
pauses.py  what fails for everybody is paused, in one row that says why
"""
