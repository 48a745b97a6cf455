"""Bots in any language, over HTTP.

protocol.py  the signed POST of a turn, and the answer to it
"""
