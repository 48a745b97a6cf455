"""Meta's platforms: WhatsApp.

platform.py            what they share: handshake, signature, tokens
envelope.py            a webhook's updates, each with its own bytes
graph.py               one call of the Graph API, and what its answer means
whatsapp.py            WhatsApp: facts, parse, split, send
whatsapp_updates.py    each kind of update as an entry of ours
whatsapp_content.py    what a message says
whatsapp_people.py     who wrote it: phone number and business-scoped user id
whatsapp_messages.py   a reply as Meta's JSON
whatsapp_templates.py  the list of templates, and a filled one as Meta's JSON
whatsapp_files.py      a file or a place as Meta's JSON
whatsapp_errors.py     each error code: its words, and what it means for a send (``whatsapp_errors.csv``)
"""

from channels_ingest.adapters.meta.whatsapp import WhatsApp

__all__ = ["WhatsApp"]
