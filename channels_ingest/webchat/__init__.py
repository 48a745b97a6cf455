"""The web chat: a page, a widget for customers' own pages, and the small API that both use.

A Django app of its own.

urls.py      pages, then the API
views.py     `/`, `/chat/<channel>/`, the widget's script and its preview
api.py       session, post a message, poll: no cookies, a token in the Authorization header
files.py     files that visitors send
endpoints.py  what all of these share: who asks, from where, refusals
timeline.py  what the page shows, one indexed query per poll
tokens.py    who a visitor is
origins.py   from which web pages a browser may write
caps.py      how many new conversations an address may begin
"""
