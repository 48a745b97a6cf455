"""All settings, in the order of the flow: installation, storing, wakes, handling, people, logs.

They are read from the environment. ``conversations.operating.checks`` refuses to start without those
that are needed. A value that nobody changes is a constant beside its use, not a setting.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
from kombu import Exchange, Queue

from conversations.contracts import Work
from conversations.waking.queues import FETCH, MAINTENANCE, queue_names

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(os.environ.get("DATA_DIR", BASE_DIR / ".data"))

# `make run` stores its variables in a file, so that a second terminal finds the same servers.
if "DATABASE_URL" not in os.environ and (DATA_DIR / "local.env").exists():
    for line in (DATA_DIR / "local.env").read_text().splitlines():
        name, _, value = line.partition("=")
        os.environ.setdefault(name, value)

env = environ.Env()
WORKER_ROLE = env("WORKER_ROLE", default="")  # set by run_worker in its children

# ---------------------------------------------------------------- who we are
SECRET_KEY = env("SECRET_KEY", default="")
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_FALLBACKS", default=[])
# Fernet keys, newest first; all decrypt, the first encrypts. Apart from SECRET_KEY on purpose.
CREDENTIALS_KEYS = env.list("CREDENTIALS_KEYS", default=[])
DEBUG = env.bool("DEBUG", default=False)
LOCAL = env.bool("LOCAL", default=False)  # `make run` and tests: plain http on this machine
# Heroku chooses the address of a review app.
_HEROKU = env("HEROKU_APP_DEFAULT_DOMAIN_NAME", default="")
PUBLIC_URL = env("PUBLIC_URL", default=f"https://{_HEROKU}" if _HEROKU else "http://127.0.0.1:8000").rstrip("/")
ALLOW_PRIVATE_OUTBOUND = env.bool("ALLOW_PRIVATE_OUTBOUND", default=False)
# Ports of public hosts that may be called; with ALLOW_PRIVATE_OUTBOUND every port is.
OUTBOUND_PORTS = env.list("OUTBOUND_PORTS", cast=int, default=[443, 8443])
# `<public id of a channel>:<user or chat>`: to whom a copy of production may write.
SEND_ONLY_TO = env.list("SEND_ONLY_TO", default=[])

ALLOWED_HOSTS = [urlsplit(PUBLIC_URL).hostname or "localhost", *env.list("EXTRA_HOSTS", default=[])]
if LOCAL:
    ALLOWED_HOSTS += ["127.0.0.1", "localhost", "testserver"]
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL]

ROOT_URLCONF = "botproject.urls"
WSGI_APPLICATION = "botproject.wsgi.application"
CELERY_APP = "botproject"
APPEND_SLASH = False  # a redirect loses the body of a POST

INSTALLED_APPS = [
    "conversations",
    "conversations.desk",
    "channels_ingest",
    "channels_ingest.webchat",
    "botproject",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django_celery_results",
    "axes",
]

if LOCAL:
    INSTALLED_APPS += env.list("EXTRA_APPS", default=[])  # bots of tests

# Webhooks pass none of these but the first, see channels_ingest.webhooks.fast_path.
MIDDLEWARE = [
    "channels_ingest.webhooks.fast_path.Front",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# ---------------------------------------------------------------- storing: Postgres is the queue
DATABASE_URL = env("DATABASE_URL", default="")
DATABASES = {"default": env.db_url_config(DATABASE_URL)} if DATABASE_URL else {"default": {}}
# Turn off behind a PgBouncer older than 1.22 in transaction mode, which does not keep them.
PREPARED_STATEMENTS = env.bool("PREPARED_STATEMENTS", default=True)
# Django's connections of a process: for bots in workers, for pages in web processes. Larger: fewer
# waits for one; each counts against the server's limit.
BOT_CONNECTIONS = env.int("BOT_CONNECTIONS", default=2)
ORM_CONNECTIONS = env.int("ORM_CONNECTIONS", default=2)
if DATABASES["default"]:
    DATABASES["default"].update(
        # In workers, a connection goes back to the pool after each query outside ``atomic``.
        ENGINE="conversations.postgres.bot_connections" if WORKER_ROLE else "django.db.backends.postgresql",
        CONN_HEALTH_CHECKS=True,
        DISABLE_SERVER_SIDE_CURSORS=True,
    )
    DATABASES["default"].setdefault("OPTIONS", {}).update(
        pool={
            "min_size": 0,
            "max_size": BOT_CONNECTIONS if WORKER_ROLE else ORM_CONNECTIONS,
            "timeout": 5,
            "max_idle": 30,
        },
        connect_timeout=3,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=15_000,
    )
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# Most bytes of a request. Larger: one may take more memory. Smaller: a large batch is refused.
WEBHOOK_BODY_CAP = 8 * 1024 * 1024
FILE_UPLOAD_HANDLERS: list[str] = []  # no page takes a file
# Days for which raw requests are stored. Larger: more disk. Smaller: old ones cannot be looked
# into.
RAW_BODY_DAYS = env.int("RAW_BODY_DAYS", default=30)
# Files of people: the largest, in bytes, and for how many days they are kept where their tenant says nothing else.
MEDIA_MAX_BYTES = env.int("MEDIA_MAX_BYTES", default=33_554_432)
MEDIA_DAYS = env.int("MEDIA_DAYS", default=365)
# Where they are kept, for all processes: a folder, or a storage of Django's with its options.
MEDIA_DIR = env("MEDIA_DIR", default=str(DATA_DIR / "media"))
MEDIA_STORAGE = env("MEDIA_STORAGE", default="django.core.files.storage.FileSystemStorage")
_IN_A_FOLDER = {"location": MEDIA_DIR, "file_permissions_mode": 0o600, "directory_permissions_mode": 0o700}
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    "media": {"BACKEND": MEDIA_STORAGE, "OPTIONS": env.json("MEDIA_STORAGE_OPTIONS", default={}) or _IN_A_FOLDER},
}
# A folder on a lasting disk of the one web host: takes webhooks while Postgres does not,
# see conversations.storing.spool.
SPOOL_DIR = env("SPOOL_DIR", default="")

ADAPTERS = {
    "telegram": "channels_ingest.adapters.telegram.Telegram",
    "whatsapp": "channels_ingest.adapters.meta.WhatsApp",
    "generic": "channels_ingest.adapters.generic.Generic",
    "web": "channels_ingest.adapters.web.Web",
}

# ---------------------------------------------------------------- wakes: Celery on Redis or RabbitMQ, a lossy doorbell
REDIS_URL = env("REDIS_URL", default="")
# Heroku's Redis has a self-signed certificate: REDIS_CERTS=none accepts it, and `check --deploy`
# warns.
REDIS_CERTS = env("REDIS_CERTS", default="required")
REDIS_TLS = {"ssl_cert_reqs": ssl.CERT_NONE if REDIS_CERTS == "none" else ssl.CERT_REQUIRED}

CELERY_BROKER_URL = env("CELERY_BROKER_URL", default=REDIS_URL)
# With amqps:// kombu fills in the host's name, so that it is verified as well.
_BROKER_TLS = {"rediss": REDIS_TLS, "amqps": {"server_hostname": None}}
CELERY_BROKER_USE_SSL = _BROKER_TLS.get(urlsplit(CELERY_BROKER_URL).scheme)
_ON_REDIS = urlsplit(CELERY_BROKER_URL).scheme in ("redis", "rediss")
CELERY_BROKER_TRANSPORT = "conversations.waking.redis_transport:Transport" if _ON_REDIS else None
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_WORKER_CONSUMER = "conversations.waking.consumer:Consumer"
# An error in an answer is no reason to end: a Redis that became a replica is a master again soon.
CELERY_BROKER_CHANNEL_ERROR_RETRY = True
CELERY_BROKER_POOL_LIMIT = 1
CELERY_BROKER_HEARTBEAT = 10  # seconds; RabbitMQ only: finds a broker that froze
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "ack_emulation": False,  # a wake is a hint: it may be lost with its worker
    "socket_timeout": 10,
    "socket_connect_timeout": 3,
    "socket_keepalive": True,
    "health_check_interval": 2,  # seconds; a connection whose other end vanished is found after 3
    "retry_on_timeout": True,
    "priority_steps": [0],
}
# Quorum queues survive the loss of a RabbitMQ node. Of the tasks that answer a bell, all alike, two
# may wait; Redis has one kind of queue, and the script that pushes there counts them.
_KIND = {"x-queue-type": "quorum"} if CELERY_BROKER_URL.startswith("amqp") else {}
_BELL = {**_KIND, "x-max-length": 2} if _KIND else {}
CELERY_TASK_QUEUES = [
    Queue(name, Exchange(name), routing_key=name, queue_arguments=(_BELL if name in {*Work, FETCH} else _KIND) or None)
    for kind in Work
    for name in queue_names(kind)
]
CELERY_TASK_DEFAULT_QUEUE = MAINTENANCE
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_IGNORE_RESULT = True
# Store failures of frequent tasks too, as type and place (conversations.telemetry.error_reports).
CELERY_TASK_STORE_ERRORS_EVEN_IF_IGNORED = True
CELERY_TASK_PUBLISH_RETRY = False
CELERY_TASK_CREATE_MISSING_QUEUES = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_WORKER_SEND_TASK_EVENTS = False
# No remote orders to workers: after a cut, redis-py connects their subscription again, and the
# thread that takes wakes would read it for ever.
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 20
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_SERIALIZER = "json"
CELERY_RESULT_BACKEND = "conversations.telemetry.error_reports.Results"
CELERY_WORKER_REDIRECT_STDOUTS = False  # what a bot prints is not a log line
CELERY_RESULT_EXTENDED = False
CELERY_TIMEZONE = "UTC"

# ---------------------------------------------------------------- handling
# Longest turn of a bot. Larger: a bot that hangs holds its conversation longer. Smaller: slow turns
# fail.
TURN_SECONDS = env.float("TURN_SECONDS", default=60.0)
# Most turns of a process at once. Larger: more slow bots at once, and more memory. Threads start
# when needed.
TURN_THREADS = env.int("TURN_THREADS", default=256)

# ---------------------------------------------------------------- people
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
CHAT_CHANNEL = env("CHAT_CHANNEL", default="")  # public id of the web channel at /; under LOCAL the first one
ADMIN_PATH = env("ADMIN_PATH", default="admin/")
STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "botproject" / "static"]
STATIC_ROOT = DATA_DIR / "static" if LOCAL else BASE_DIR / "staticfiles"
WHITENOISE_USE_FINDERS = True
if LOCAL:
    STATIC_ROOT.mkdir(parents=True, exist_ok=True)  # whitenoise warns about a missing folder
PASSWORD_HASHERS = [
    "botproject.passwords.Argon2",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "admin:login"
AXES_VERBOSE = False
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"], "ip_address"]
AXES_HANDLER = "botproject.logins.LoginAttempts"
AXES_CLIENT_IP_CALLABLE = "channels_ingest.webhooks.client_address.client_address"
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False  # or anybody could renew a lock for ever

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 12 * 3600
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PUBLIC_URL.startswith("https://")
SECURE_HSTS_SECONDS = 31_536_000 if PUBLIC_URL.startswith("https://") else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = bool(SECURE_HSTS_SECONDS)
SECURE_SSL_REDIRECT = False  # a redirect loses a webhook; the router redirects people
SILENCED_SYSTEM_CHECKS = ["security.W008"]  # the line above
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env.bool("BEHIND_ROUTER", default=False) else None
# Where routers of ours write the client's address, as WSGI names it, and how many of them there are.
CLIENT_ADDRESS_HEADER = "HTTP_" + env("CLIENT_ADDRESS_HEADER", default="X-Forwarded-For").upper().replace("-", "_")
ROUTER_HOPS = max(env.int("ROUTER_HOPS", default=1), 1)
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "img-src": ["'self'", "data:", "https:"],
        "style-src": ["'self'"],
        "script-src": ["'self'"],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
        "form-action": ["'self'"],
    }
}

# Workers serve no pages: they neither install nor import what only pages need.
if WORKER_ROLE:
    _PAGES = (
        "conversations.desk",
        "channels_ingest.webchat",
        "django.contrib.admin",
        "django.contrib.sessions",
        "django.contrib.messages",
        "django.contrib.staticfiles",
        "axes",
    )
    INSTALLED_APPS = [app for app in INSTALLED_APPS if app not in _PAGES and not app.startswith("whitenoise")]
    MIDDLEWARE, TEMPLATES = [], []
    ROOT_URLCONF = "conversations.urls"
    AUTHENTICATION_BACKENDS = []


# ---------------------------------------------------------------- logs and errors
SENTRY_DSN = env("SENTRY_DSN", default="")
VERSION = (env("VERSION", default="") or env("HEROKU_SLUG_COMMIT", default="") or "unknown")[:40]
# Token for /metrics/ and for the figures of /healthz/ (`Authorization: Bearer ...`). Without it
# /metrics/ is a 404.
METRICS_TOKEN = env("METRICS_TOKEN", default="")
# Seconds after which a message or reply that should be moving makes /healthz/ say `late`. Larger:
# the alarm comes later. Smaller: a slow turn, or a short backlog, raises it.
LATE_SECONDS = env.float("LATE_SECONDS", default=20.0)
LOG_LEVEL = env("LOG_LEVEL", default="INFO")
LOG_FORMAT = env("LOG_FORMAT", default="json")
LOGGING_CONFIG = None  # conversations.telemetry.logs sets it up, for web and workers alike
FAILPOINTS = env("FAILPOINTS", default="") if LOCAL else ""
