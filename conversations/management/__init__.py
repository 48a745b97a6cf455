"""`manage.py` commands of the core.

commands/  one file per command
"""
