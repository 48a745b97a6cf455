"""The tables, in the order of the flow. Columns, states and named constraints; behaviour lives in the steps.

channels.py    Tenant, TenantStaff, App, Channel, Pause
people.py      Contact, Alias
lanes.py       Conversation (the lane), ConversationState, Timer, Desk
inbound.py     Receipt, ReceiptBody, Quarantine, Message, Turn, Once
outbound.py    Reply, Status, Bucket
media.py       Media
templates.py   Template
operations.py  Installation, Worker, Audit
sql.py         database functions that Django has no name for
"""

from conversations.models.channels import App, Channel, Pause, Tenant, TenantStaff
from conversations.models.inbound import Message, Once, Quarantine, Receipt, ReceiptBody, Turn
from conversations.models.lanes import Conversation, ConversationState, Desk, Timer
from conversations.models.media import Media
from conversations.models.operations import Audit, Installation, Worker
from conversations.models.outbound import Bucket, Reply, Status
from conversations.models.people import Alias, Contact
from conversations.models.templates import Template

__all__ = [
    "Alias", "App", "Audit", "Bucket", "Channel", "Contact", "Conversation", "ConversationState", "Desk",
    "Installation", "Media", "Message", "Once", "Pause", "Quarantine", "Receipt", "ReceiptBody", "Reply", "Status",
    "Template", "Tenant", "TenantStaff", "Timer", "Turn", "Worker",
]  # fmt: skip
