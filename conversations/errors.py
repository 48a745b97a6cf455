"""Errors that cross a module's border.

CoreError
├── Busy             the process may not queue more work: answer 503, the caller tries again
├── NotStored        storing failed for a reason of ours: answer 503
├── Conflict         the same message is stored with other content: the caller is told
├── LaneMoved        the lane changed since it was read: the computed result is void
├── BadOutput        a bot wrote something that cannot be stored or offered
├── NoFile           the file of an attachment cannot be opened
├── WrongFile        a file is not kept: empty, a program, not what it is said to be
├── UnknownBot       no bot of that name is registered
├── UnknownPlatform  no adapter of that name is registered
├── WrongSetting     what a person typed as a setting of a channel is not valid
├── WrongKeys        CREDENTIALS_KEYS do not open what this database holds
└── UnsafeDatabase   Postgres could lose what it has confirmed; also a psycopg.OperationalError
"""

from __future__ import annotations

import psycopg


class CoreError(Exception):
    """Base of the core's own errors."""


class Busy(CoreError):
    """The bounded queue is full, or the request's deadline passed while waiting."""


class NotStored(CoreError):
    """The database or the spool did not store an item, for a reason of ours: answer 503."""


class Conflict(CoreError):
    """The identity of a stored message came through an API of ours with other content."""


class LaneMoved(CoreError):
    """Another process or a person changed the lane (conversation) since it was read."""


class BadOutput(CoreError):
    """State or replies of a bot that cannot be stored or offered (NUL, not JSON, too large)."""


class NoFile(CoreError):
    """The file of an attachment was refused, deleted, or did not come in time. The words are for bots."""


class WrongFile(CoreError):
    """A file is not kept. The words are for whoever sent it."""


class UnknownBot(CoreError):
    """A channel names a bot that no installed app registers."""


class UnknownPlatform(CoreError):
    """A channel names a platform that has no adapter."""


class WrongSetting(CoreError):
    """A setting of a channel is not valid. The words are for the person who typed it."""


class WrongKeys(CoreError):
    """``CREDENTIALS_KEYS`` do not open what this database holds."""


class UnsafeDatabase(CoreError, psycopg.OperationalError):
    """With a setting of Postgres (such as ``fsync``), it may lose rows that it has confirmed.

    Handled like a database that is away: webhooks get 503, and the platform sends them again.
    """
