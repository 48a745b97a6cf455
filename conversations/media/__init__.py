"""Files that people send: fetched beside the lane, kept in a storage of Django's, shown and deleted.

types.py      what a file is, by its content, and what of it may be shown
files.py      the storage, and the name of a file in it
quota.py      what strangers may leave with us: bytes of a channel in a day, room on the disk
fetching.py   a step of its own: claim -> the adapter fetches -> check -> keep
adding.py     a file that is ours from the start: of a visitor, a bot, staff
opening.py    a bot opens a file, and waits for it
outgoing.py   a file in a reply: uploaded once, and reused
serving.py    a file as an HTTP answer; for web processes
retention.py  deletes files that are old, and those that nothing refers to
"""
