"""Calls out.

http.py        one call, and the only map from HTTP status to outcome
connection.py  HTTP/1.1 over connections that are kept
deadlines.py   a total deadline for each call
"""
