"""How passwords are hashed."""

from __future__ import annotations

import threading

from django.contrib.auth.hashers import Argon2PasswordHasher

# Held while a password is hashed: guesses take one core and 46 MB at most.
one_at_once = threading.Lock()


class Argon2(Argon2PasswordHasher):
    """Argon2id as OWASP recommends it: 46 MiB, one pass, one thread.

    Whoever guesses a password makes us hash it. With Django's 100 MB and eight threads a guess
    takes four times the CPU, and ten guesses a second made webhooks wait half a second. With less
    than 32 MiB glibc would keep the memory. Hashes made with other parameters stay valid, and are
    replaced at the next login.
    """

    memory_cost = 46 * 1024
    time_cost = 1
    parallelism = 1

    def encode(self, password: str, salt: str) -> str:
        with one_at_once:
            return super().encode(password, salt)

    def verify(self, password: str, encoded: str) -> bool:
        with one_at_once:
            return super().verify(password, encoded)
