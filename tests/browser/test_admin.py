"""Staff at work in a real browser, on the real processes: what a visitor writes, seen and answered live."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit.doubles import Double
from tests.kit.stack import Channel, Stack, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("admin")]

PASSWORD = "words-of-the-chief-123"
HOSTILE = '<img src=x onerror="window.ran=1"><script>window.ran=1</script> javascript:window.ran=1 \u202egnp.exe'
# A red dot.
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
LISTS = ("conversation", "stuckconversation", "parkedmessage", "replyforstaff", "quarantine", "contact", "channel",
         "pause", "tenant", "tenantstaff", "worker", "audit")  # fmt: skip


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack() as running:
        running.env["DJANGO_SUPERUSER_PASSWORD"] = PASSWORD
        running.manage("createsuperuser", "--noinput", "--username", "chief", "--email", "chief@example.org")
        running.wait_for_workers("handle", "send")
        yield running


@pytest.fixture(scope="module")
def echo(stack: Stack) -> Channel:
    return stack.add_channel("web", bot="echo")


@pytest.fixture
def desk(browser: Browser, stack: Stack) -> Iterator[Page]:
    """A person of staff, logged in. The browser itself has nothing to complain of."""
    context = browser.new_context()
    page = context.new_page()
    heard: list[str] = []
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("console", lambda line: heard.append(line.text) if line.type == "error" else None)
    page.goto(f"{admin(stack)}login/")
    page.fill("#id_username", "chief")
    page.fill("#id_password", PASSWORD)
    page.click("input[type=submit]")
    page.get_by_text("Overview").wait_for()
    yield page
    context.close()
    assert [words for words in heard if "status of 503" not in words] == []  # a test takes the server away


@pytest.fixture
def visitor(page: Page, stack: Stack, echo: Channel) -> Page:
    """A visitor of the chat page, before the first word."""
    page.goto(f"{stack.env['PUBLIC_URL']}/chat/{echo.public_id}/")
    return page


def admin(stack: Stack) -> str:
    return f"{stack.env['PUBLIC_URL']}/admin/"


def say(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Enter")


def open_newest(desk: Page, stack: Stack) -> int:
    """The page of the newest conversation; its number."""
    number = stack.value("SELECT max(id) FROM conversation")
    desk.goto(f"{admin(stack)}conversations/conversation/{number}/change/")
    return int(number)


def lane(stack: Stack, number: int) -> dict[str, Any]:
    names = "mode", "epoch", "last_sequence", "paused_at"
    query = f"SELECT {', '.join(names)} FROM conversation WHERE id = %s"
    return dict(zip(names, stack.query(query, number)[0], strict=True))


@pytest.mark.slow
def test_staff_follow_take_over_answer_and_hand_back(desk: Page, visitor: Page, stack: Stack) -> None:
    say(visitor, "hello bot")
    visitor.locator(".theirs").first.wait_for()
    number = open_newest(desk, stack)
    desk.locator(".bubble-out").get_by_text("hello bot").wait_for()
    say(visitor, "is anybody there?")
    desk.locator(".bubble-in").get_by_text("is anybody there?").wait_for(timeout=5_000)  # live, without a reload
    desk.fill("#answer textarea", "Yes, this is the chief.")
    desk.get_by_role("button", name="Take over and send").click()
    visitor.get_by_text("Yes, this is the chief.").wait_for(timeout=15_000)
    desk.get_by_text("A person (chief) answers here").wait_for()
    assert lane(stack, number)["mode"] == "human"
    say(visitor, "thank you")
    desk.locator(".bubble-in").get_by_text("thank you").wait_for(timeout=5_000)
    desk.get_by_text("the newest message waits for words").wait_for()
    desk.fill("#answer textarea", "You are welcome.")
    desk.get_by_role("button", name="Send", exact=True).click()
    desk.get_by_text("Answered by chief").wait_for()  # preset: somebody wrote after the newest message
    desk.get_by_role("button", name="Hand back").click()
    desk.get_by_text("The bot answers again").wait_for()
    desk.get_by_text("answered by chief").first.wait_for()
    say(visitor, "bot again")
    desk.locator(".bubble-out").get_by_text("bot again").wait_for(timeout=15_000)


PASTE = """content => {
  const data = new DataTransfer();
  const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  data.items.add(new File([bytes], "pasted.png", { type: "image/png" }));
  const text = document.getElementById("text");
  text.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
}"""
DROP = PASTE.replace("pasted.png", "dropped.png").replace(
    'new ClipboardEvent("paste", { clipboardData: data,', 'new DragEvent("drop", { dataTransfer: data,'
)
LOADED = "([where, many]) => [...document.querySelectorAll(where)].filter((each) => each.naturalWidth).length === many"


def test_files_go_both_ways(desk: Page, visitor: Page, stack: Stack) -> None:
    """A visitor's come by the button, by pasting and by dropping; a bad one is explained and holds up the message."""
    picture = {"name": "a.png", "mimeType": "image/png", "buffer": base64.b64decode(PICTURE)}
    program = {"name": "bad.png", "mimeType": "image/png", "buffer": b"MZ\0"}
    visitor.set_input_files("#chosen", [picture, program])
    visitor.evaluate(PASTE, PICTURE)
    visitor.evaluate(DROP, PICTURE)
    refused = visitor.locator("#files li.refused")
    refused.get_by_text("it is a program").wait_for()
    assert visitor.locator("#send").is_disabled()
    refused.get_by_role("button", name="Remove").click()
    visitor.wait_for_function("() => !document.getElementById('send').disabled")
    say(visitor, "three pictures")
    visitor.locator(".theirs").first.wait_for()
    visitor.reload()
    visitor.wait_for_function(LOADED, arg=[".mine img", 3])
    open_newest(desk, stack)
    desk.wait_for_function(LOADED, arg=[".bubble-in img", 3])
    desk.set_input_files("#answer input[type=file]", [picture])
    desk.get_by_role("button", name="Take over and send").click()
    desk.wait_for_function(LOADED, arg=[".author-person img", 1])
    visitor.wait_for_function(LOADED, arg=[".theirs img", 1])


WHATSAPP = {
    "app_secret": "a" * 32, "verify_token": "v", "access_token": "T",
    "phone_number_id": "555000111222333", "waba_id": "777000111222333",
}  # fmt: skip


def test_a_template_takes_the_place_of_text_until_the_person_writes(desk: Page, stack: Stack, double: Double) -> None:
    channel = stack.add_channel("whatsapp", api_base=double.url, **WHATSAPP)
    stack.manage("fetch_templates", channel.public_id)
    write = ("send_webhook", "text", "--channel", channel.public_id, "--fresh")
    stack.manage(*write)
    wait_until(lambda: stack.value("SELECT max(id) FROM conversation WHERE channel_id = %s", channel.id), 10, "a lane")
    stack.query("UPDATE conversation SET window_until = now() WHERE channel_id = %s", channel.id)
    open_newest(desk, stack)
    assert desk.locator("#answer").is_hidden()
    desk.get_by_role("link", name="Choose a template").click()
    desk.select_option("#template", label="order_shipped (en_US)")
    desk.get_by_role("button", name="Show").click()
    desk.set_input_files("#chosen", {"name": "a.png", "mimeType": "image/png", "buffer": base64.b64decode(PICTURE)})
    for slot, value in (("1", "Ada"), ("2", "no. 17"), ("button 2", "17")):
        desk.fill(f'[data-slot="{slot}"]', value)
    desk.locator(".phone").get_by_text("Hello Ada, your order no. no. 17 has left").wait_for()
    desk.get_by_role("button", name="Take over and send").click()
    desk.locator(".author-person").get_by_text("Hello Ada").wait_for()
    desk.wait_for_function(LOADED, arg=[".author-person img", 1])
    (sent,) = double.wait_for(1, method="template")
    assert [part["type"] for part in sent["body"]["template"]["components"]] == ["header", "body", "button"]
    stack.manage(*write)
    desk.locator("#answer").wait_for()


def test_what_is_being_written_stays_while_the_page_lives(desk: Page, visitor: Page, stack: Stack) -> None:
    say(visitor, "one")
    visitor.locator(".theirs").first.wait_for()
    open_newest(desk, stack)
    desk.fill("#answer textarea", "half a sent")
    desk.fill("form[data-verb=pause] input[name=note]", "half a rea")
    say(visitor, "two")
    desk.locator(".bubble-in").get_by_text("two").wait_for(timeout=5_000)
    assert desk.input_value("#answer textarea") == "half a sent"
    assert desk.input_value("form[data-verb=pause] input[name=note]") == "half a rea"


def test_a_live_page_acts_on_what_it_shows(desk: Page, visitor: Page, stack: Stack) -> None:
    """Somebody else takes over; the page follows, and its answer is no second take-over."""
    say(visitor, "hello")
    visitor.locator(".theirs").first.wait_for()
    number = open_newest(desk, stack)
    other = desk.context.new_page()
    other.goto(desk.url)
    other.get_by_role("button", name="Take over", exact=True).click()
    other.get_by_text("You answer now").wait_for()
    desk.get_by_role("button", name="Send", exact=True).wait_for(timeout=5_000)
    desk.fill("#answer textarea", "Together, then.")
    desk.get_by_role("button", name="Send", exact=True).click()
    visitor.get_by_text("Together, then.").wait_for(timeout=15_000)
    assert lane(stack, number)["epoch"] == 1


def test_words_of_visitors_never_run(desk: Page, visitor: Page, stack: Stack) -> None:
    say(visitor, HOSTILE)
    visitor.locator(".theirs").first.wait_for()
    desk.on("dialog", lambda dialog: pytest.fail(dialog.message))
    number = open_newest(desk, stack)
    message = stack.value("SELECT max(id) FROM message WHERE conversation_id = %s", number)
    pages = [*(f"{name}/" for name in LISTS), f"conversation/{number}/change/", f"message/{message}/change/"]
    for address in pages:
        answer = desk.goto(f"{admin(stack)}conversations/{address}")
        assert answer is not None
        assert answer.status == 200
        assert desk.evaluate("window.ran") is None
    desk.goto(f"{admin(stack)}conversations/conversation/{number}/change/")
    desk.locator(".bubble-in").get_by_text("<script>window.ran=1</script>").wait_for()
    desk.get_by_text("⟦U+202E⟧").first.wait_for()


def test_the_page_shows_a_lost_server_and_clears_it_afterwards(desk: Page, visitor: Page, stack: Stack) -> None:
    say(visitor, "hello")
    visitor.locator(".theirs").first.wait_for()
    open_newest(desk, stack)
    desk.route("**/live/*", lambda route: route.fulfill(status=503, body=""))
    desk.get_by_text("Not connected; trying again").wait_for(timeout=5_000)
    desk.unroute_all()
    desk.get_by_text("Not connected; trying again").wait_for(state="hidden", timeout=5_000)
