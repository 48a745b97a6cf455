"""How fast, side by side, in one run: `make bench`. Ratios count; machines are noisy.

world      platforms and people: sends webhooks, takes replies, checks that each comes once and in order
stack      the processes and servers that are measured
measures   what they cost: CPU by part, transactions, statements, rows, WAL
limit, plain, queue   what we are compared with
cases      what is done, and the targets
report     tables, JSON, SVG
"""
