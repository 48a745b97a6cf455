"""The demo: a small tea shop. It shows what a bot can do, a function per step; read it before writing your own.

state      ``turn.state`` is a dict that stays: the name, the order, what was ordered before
buttons    ``turn.reply(..., choices=[(id, title), ...])``; the id of the one that is pressed, or typed, comes back as
           ``turn.message.payload``
hand-over  ``turn.hand_over(reason)`` lets a person answer from the next message on
"""

from __future__ import annotations

import re

from django.conf import settings

from conversations.contracts import Attachment
from conversations.errors import BadOutput
from conversations.registry import bot
from conversations.templates import Template
from conversations.turns import Turn

Choices = list[tuple[str, str]]

TEAS = {"assam": "Assam", "sencha": "Sencha", "rooibos": "Rooibos"}
# Price of a pack.
CENTS = {"assam": 690, "sencha": 840, "rooibos": 550}
SHOP = f"{settings.PUBLIC_URL}/static/shop.png"  # a picture of it
PACKS = 5  # most packs in one order
MENU: Choices = [
    ("order", "Order tea"),
    ("orders", "My orders"),
    ("hours", "Opening hours"),
    ("person", "Talk to a person"),
]
# What people type instead of pressing a button.
WORDS = {
    "help": "menu", "start": "menu", "menu": "menu", "hi": "menu", "hello": "menu",
    "order": "order", "tea": "order", "buy": "order",
    "orders": "orders", "status": "orders", "where": "orders",
    "hours": "hours", "open": "hours", "when": "hours",
    "person": "person", "human": "person", "agent": "person", "complaint": "person",
    "parcel": "parcel", "shipped": "parcel",
    "shop": "shop", "photo": "shop", "picture": "shop",
    "forget": "forget",
}  # fmt: skip


@bot("demo")
def demo(turn: Turn) -> None:
    """Handle one message: finish what was asked before, else do what the person wants."""
    asked = turn.state.pop("asked", "")
    wish = wanted(turn)
    typed = not turn.message.payload and not turn.message.command
    if asked == "name" and typed and not wish:
        remember_name(turn)
    elif asked == "packs" and wish.isdecimal() and len(wish) < 4:
        choose_packs(turn, int(wish))
    else:
        answer(turn, wish)


def wanted(turn: Turn) -> str:
    """Return the button that was pressed, the command, or the first word that we know."""
    message = turn.message
    if message.payload or message.command:
        return message.payload or WORDS.get(message.command.lower(), "menu")
    words = re.findall(r"\w+", message.text.casefold())
    numbers = [word for word in words if word.isdecimal()]
    return next(iter([*numbers, *(WORDS[word] for word in words if word in WORDS)]), "")


def answer(turn: Turn, wish: str) -> None:
    """Do what the person wants.

    ``wish`` is a word, or for a button with a subject ``word:subject``.
    """
    verb, _, subject = wish.partition(":")
    match verb:
        case "order":
            turn.reply("Which tea would you like?", choices=[(f"tea:{tea}", price_of(tea)) for tea in TEAS])
        case "tea" if subject in TEAS:
            choose_tea(turn, subject)
        case "buy" if "basket" in turn.state:
            buy(turn)
        case "cancel":
            turn.state.pop("basket", None)
            offer(turn, "All right, nothing was ordered.")
        case "orders":
            list_orders(turn)
        case "hours" | "shop" | "parcel":
            inform(turn, verb)
        case "person":
            hand_over(turn)
        case "forget":
            turn.state.clear()
            turn.reply("I have forgotten everything. Say hello to begin again.")
        case _:
            greet(turn)


# ---------------------------------------------------------------- getting to know each other


def greet(turn: Turn) -> None:
    """Offer the menu by name, or ask for the name first."""
    name = turn.state.get("name") or turn.contact.name
    if name:
        offer(turn, f"What can I do for you, {name}?")
        return
    turn.state["asked"] = "name"
    turn.reply("Hello! I am the bot of a small tea shop.")
    turn.reply("What may I call you?")


def remember_name(turn: Turn) -> None:
    """Keep the name that the person typed, without the words around it."""
    name = re.sub(r"(?i)^(i am|i'm|my name is|it's)\s+", "", turn.message.text.strip()).rstrip(".!")[:40]
    if not name:
        greet(turn)
        return
    turn.state["name"] = name
    offer(turn, f"Nice to meet you, {name}. What can I do for you?")


def offer(turn: Turn, words: str) -> None:
    turn.reply(words, choices=MENU)


# ---------------------------------------------------------------- ordering


def choose_tea(turn: Turn, tea: str) -> None:
    turn.state["basket"] = {"tea": tea, "packs": 0}
    turn.state["asked"] = "packs"
    turn.reply(f"{TEAS[tea]}, a good choice. How many packs?", choices=["1", "2", "3"])


def choose_packs(turn: Turn, packs: int) -> None:
    basket = turn.state["basket"]
    if not 1 <= packs <= PACKS:
        turn.state["asked"] = "packs"
        turn.reply(f"I can send 1 to {PACKS} packs. How many would you like?")
        return
    basket["packs"] = packs
    total = euros(packs * CENTS[basket["tea"]])
    turn.reply(
        f"{packs} × {TEAS[basket['tea']]}, {total} in all. Shall I order it?",
        choices=[("buy", "Yes, order it"), ("cancel", "No, thanks")],
    )


def buy(turn: Turn) -> None:
    """Place the order. Without a number of packs, ask for it again."""
    basket = turn.state.pop("basket")
    if not basket["packs"]:
        choose_tea(turn, basket["tea"])
        return
    orders = turn.state.setdefault("orders", [])
    number = turn.state["ordered"] = turn.state.get("ordered", 1000) + 1
    orders.append(f"No. {number}: {basket['packs']} × {TEAS[basket['tea']]}")
    del orders[:-5]
    turn.log("ordered", number)
    offer(turn, f"Thank you! Your order has number {number} and leaves us tomorrow.")


def list_orders(turn: Turn) -> None:
    orders = turn.state.get("orders", [])
    offer(turn, "\n".join(["Your orders:", *orders]) if orders else "You have not ordered anything yet.")


def inform(turn: Turn, about: str) -> None:
    """Tell of our hours, our shop, or an order that has left."""
    if about == "hours":
        offer(turn, "We are open Monday to Saturday, 9:00 to 18:30. You can order here at any time.")
    elif about == "shop":
        turn.reply("This is our shop.", media=Attachment(kind="image", url=SHOP))
    else:
        tell_of_parcel(turn, str(turn.state.get("ordered", 1000)))


def tell_of_parcel(turn: Turn, number: str) -> None:
    """Send WhatsApp's template, if one of this name was fetched for the channel; else say the same in plain words."""
    values = {"header": SHOP, "1": turn.contact.name or "there", "2": number, "button 2": number}
    try:
        turn.reply(template=Template("order_shipped", language="en_US", values=values))
    except BadOutput:
        offer(turn, f"Your order no. {number} has left our shop.")


def price_of(tea: str) -> str:
    return f"{TEAS[tea]}, {euros(CENTS[tea])}"


def euros(cents: int) -> str:
    return f"€{cents // 100}.{cents % 100:02}"


# ---------------------------------------------------------------- a person


def hand_over(turn: Turn) -> None:
    turn.reply("Of course. A colleague will answer you here as soon as possible.")
    turn.hand_over("asked for a person")
