"""Calls out. An import contract allows it two modules of the core: contracts and concurrency.

http.py        one call, and the only map from HTTP status to outcome
addresses.py   the guard against SSRF: where a call may go
lookups.py     the addresses of a name, within a limited time
connection.py  HTTP/1.1 over kept connections
deadlines.py   a total deadline for each call
"""
