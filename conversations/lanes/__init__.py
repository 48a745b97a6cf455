"""What handling and delivering share of a lane.

lock.py          the Redis lock of a lane: hold, extend, release
redis_client.py  the process's client, and the Lua scripts that it runs
pauses.py        what fails for everybody is paused, in one row that says why
"""
