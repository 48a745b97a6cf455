"""The desk: what staff see and do. A Django app of its own, which workers do not install.

access.py       the roles of staff, and who may see and do what
actions.py      the verbs: retry, skip, park, take over, answer, pause
answers.py      what an answer is made of: words and files, or a template
transaction.py  the transaction of a verb: lock, act, audit, COMMIT, wake
facts.py        the facts about conversations that do not move, from rows
reasons.py      why a conversation is not moving, in sentences
timeline.py     one conversation: messages, turns, replies and what people did
search.py       finds a conversation by a name, a number or an id
api.py          the same answers as JSON, for scripts
urls.py         where that API is
admin/          the pages in the Django admin
templatetags/   what the pages' templates call
"""
