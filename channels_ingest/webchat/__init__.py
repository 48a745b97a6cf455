"""The web chat: a page, a widget for customers' own pages, and the small API that both use.

views      pages: `/`, `/chat/<channel>/`, the widget's script and its preview
api        session, post a message, poll: no cookies, a token in the Authorization header
origins    from which web pages a browser may write
tokens     who a visitor is
caps       how many new conversations an address may begin
timeline   what the page shows, one indexed query per poll
"""
