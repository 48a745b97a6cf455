"""The job, and the apps that defer and run it."""

from __future__ import annotations

import os

import procrastinate
import urllib3

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["DATABASE_URL"], max_size=16))
http = urllib3.PoolManager(maxsize=64)


@app.task(name="answer", queue="answers")
def answer(user: int, text: str) -> None:
    """Run the bot, an echo, and deliver its reply."""
    url = f"{os.environ['API_BASE']}/bot1:queue/sendMessage"
    http.request("POST", url, json={"chat_id": user, "text": text})
