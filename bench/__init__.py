"""Measures speed, side by side with other pipelines in one run: `make bench`. Compare ratios; machines are noisy.

world      platforms and people: sends webhooks, takes replies, checks that each arrives once and in order
stack      the processes and servers that are measured
measures   what they cost: CPU by part, transactions, statements, rows, WAL
limit, plain, queue   what our pipeline is compared with; floor: what no pipeline can leave out
latency, trouble, volume   the cases: alone; while others cause trouble; large
parsing    the case about verifying and reading one message
account, probes   a message's way, step by step, noted from outside
pairs      an older commit beside this one
strangers, crowds     what strangers make us spend, and how they do it
cases      every case, and the targets
report     tables, JSON, SVG
"""
