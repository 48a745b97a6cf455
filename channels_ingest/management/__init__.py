"""`manage.py` commands of the edge.

commands/  one file per command
"""
