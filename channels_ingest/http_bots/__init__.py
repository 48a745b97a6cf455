"""Bots in any language, over HTTP.

protocol.py  the signed POST of a turn, its answer, and late replies
views.py     where a bot posts late replies
"""
