"""A process that stores messages from many threads:

    python -m tests.kit.flood <channel> <threads> <messages> <users> <name>

Prints a JSON line per message: user, text, when it was given to the core and when it was accepted.
"""

from __future__ import annotations

import json
import sys
import threading
import time


def main(channel_id: int, threads: int, messages: int, users: int, name: str) -> None:
    import django

    django.setup()
    from conversations import registry
    from tests.kit.entries import accept, entry

    channel = registry.channel(channel_id)
    assert channel is not None
    lines: list[list[object]] = []

    def post(thread: int) -> None:
        for number in range(messages // threads):
            user, text = f"flood{(thread + number) % users}", f"{name}-{thread}-{number}"
            began = time.time()
            accept(channel, entry(user, text))
            lines.append([user, text, began, time.time()])

    running = [threading.Thread(target=post, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    json.dump(lines, sys.stdout)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:5]), sys.argv[5])
