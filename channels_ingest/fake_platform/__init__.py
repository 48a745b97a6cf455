"""A double of the chat platforms, on this machine: for tests, and to try everything without an account.

tables.py     what each platform accepts and how it refuses: ``limits.csv``, ``errors.csv``
world.py      accounts, who wrote when, files, templates
telegram.py   the Bot API: what a call says, whether it is refused, its answer
whatsapp.py   the same of WhatsApp's Cloud API
generic.py    the same of a receiver of the generic channel
server.py     the HTTP server: a script of misbehaviours, a record of calls
phones.py     the page ``page/``: what people see and write; signed webhooks (``webhooks.json``), statuses
demo.py       channels and conversations of ``make demo`` (``demo.json``)
"""
