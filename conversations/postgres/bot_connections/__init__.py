"""Django's backend for Postgres in workers: ``ENGINE = "conversations.postgres.bot_connections"``.

base.py  a connection only while a query or a transaction needs it (Django prescribes the name)
"""
