"""One test per race, named by what must hold: real Postgres and Valkey, real processes and threads."""
