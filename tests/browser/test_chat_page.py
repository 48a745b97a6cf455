"""The chat page and the widget in a real browser, on the real processes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from channels_ingest.webchat import tokens
from tests.kit.shared import shared
from tests.kit.stack import Channel, Stack, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Frame, Page, Route
    from pytest_httpserver import HTTPServer

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("chat page")]

SECRET = "known-to-the-shop-and-us"
HOSTILE = '<img src=x onerror="window.ran=1"> javascript:window.ran=1 https://good.example/?q="onclick=ran'
SHOP = '<!doctype html><title>Shop</title><h1>Shop</h1><script src="{script}" data-channel="{channel}" async></script>'
KEPT = "(() => { try { return Object.keys(localStorage).join() } catch { return '' } })()"
SHOP_POLICY = "default-src 'none'; script-src {origin}; frame-src {origin}"


stack = shared()


@pytest.fixture(scope="module")
def echo(stack: Stack) -> Channel:
    return stack.add_channel("web", bot="echo")


@pytest.fixture(scope="module")
def demo(stack: Stack) -> Channel:
    return stack.add_channel("web", bot="demo")


@pytest.fixture
def complaints(page: Page) -> Iterator[list[str]]:
    """What the browser itself complains of: a refused script, an exception. A test that takes this has none."""
    heard: list[str] = []
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("console", lambda line: heard.append(line.text) if line.type == "error" else None)
    yield heard
    assert heard == []


def address(stack: Stack, channel: Channel) -> str:
    return f"{stack.env['PUBLIC_URL']}/chat/{channel.public_id}/"


def say(page: Page | Frame, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Enter")


def words(page: Page | Frame, side: str) -> list[str]:
    return page.locator(f".{side} .words").all_inner_texts()


def wait_for_replies(page: Page, number: int, seconds: float = 20) -> list[str]:
    enough = "number => document.querySelectorAll('.theirs').length >= number"
    page.wait_for_function(enough, arg=number, timeout=seconds * 1000)
    return words(page, "theirs")


def stored(stack: Stack, channel: Channel) -> list[str]:
    """What the newest visitor of a channel wrote, as it is numbered in the database."""
    rows = stack.query(
        "SELECT m.text FROM message m WHERE m.conversation_id ="
        " (SELECT max(id) FROM conversation WHERE channel_id = %s) ORDER BY m.sequence",
        channel.id,
    )
    return [text for (text,) in rows]


def take_over(stack: Stack, channel: Channel, first_name: str) -> None:
    """What a person of staff leaves who takes the newest conversation of a channel."""
    ((staff,),) = stack.query(
        "INSERT INTO auth_user (username, first_name, last_name, email, password, is_staff, is_active, is_superuser,"
        " date_joined) VALUES (%s, %s, '', '', '', true, true, false, now()) RETURNING id",
        f"staff-{channel.id}",
        first_name,
    )
    stack.query("INSERT INTO desk (conversation_id, assignee_id)"
                " SELECT max(id), %s FROM conversation WHERE channel_id = %s RETURNING 1", staff,
                channel.id)  # fmt: skip


# ---------------------------------------------------------------- talking


@pytest.mark.slow
def test_a_visitor_orders_tea_reloads_and_asks_for_a_person(
    page: Page, stack: Stack, demo: Channel, complaints: Any
) -> None:
    page.goto(address(stack, demo))
    page.get_by_role("button", name="Say hello").click()
    assert "What may I call you?" in wait_for_replies(page, 2)
    say(page, "Ada")
    page.get_by_role("button", name="Order tea").click()
    assert page.get_by_role("button", name="Order tea").is_disabled()
    page.get_by_role("button", name="Sencha").click()
    page.get_by_role("button", name="2", exact=True).click()
    page.get_by_role("button", name="Yes, order it").click()
    page.get_by_text("has number 1001").wait_for()
    before = page.locator(".words").all_inner_texts()
    page.reload()
    page.get_by_text("has number 1001").wait_for()
    assert page.locator(".words").all_inner_texts() == before
    assert page.get_by_role("button", name="Sencha").is_disabled()
    page.get_by_role("button", name="Talk to a person").last.click()
    page.get_by_text("A colleague will answer here").wait_for()
    assert page.get_by_text("You are talking to").count() == 0
    take_over(stack, demo, first_name="Anna")
    page.get_by_text("You are talking to Anna").wait_for()


def test_two_pages_of_one_visitor_show_the_same(page: Page, stack: Stack, echo: Channel) -> None:
    page.goto(address(stack, echo))
    assert page.evaluate("document.documentElement.scrollHeight - innerHeight") == 0
    say(page, "from the first")
    wait_for_replies(page, 1)
    second = page.context.new_page()
    second.goto(address(stack, echo))
    wait_for_replies(second, 1)
    say(second, "from the second")
    assert wait_for_replies(page, 2) == wait_for_replies(second, 2) == ["from the first", "from the second"]
    assert words(page, "mine") == words(second, "mine") == ["from the first", "from the second"]


# ---------------------------------------------------------------- nothing is lost or reordered


@pytest.mark.slow
def test_lost_answers_and_faults_neither_lose_nor_double_nor_reorder(page: Page, stack: Stack, echo: Channel) -> None:
    fates = itertools.cycle(["answer lost", "taken", "never arrives", "answer lost", "busy", "taken"])

    def hurt(route: Route) -> None:
        fate = next(fates) if route.request.method == "POST" else "taken"
        if fate == "answer lost":
            route.fetch()
        if fate == "busy":
            route.fulfill(status=503, headers={"Retry-After": "1"}, body="")
        elif fate == "taken":
            route.continue_()
        else:
            route.abort()

    page.goto(address(stack, echo))
    say(page, "first")
    wait_for_replies(page, 1)
    page.route("**/messages*", hurt)
    sent = [f"message {number}" for number in range(8)]
    for text in sent:
        say(page, text)
    assert wait_for_replies(page, 9, seconds=60) == ["first", *sent]
    assert words(page, "mine") == stored(stack, echo) == ["first", *sent]


def test_what_was_not_sent_survives_a_reload(page: Page, stack: Stack, echo: Channel) -> None:
    page.route(re.compile("/web/"), lambda route: route.abort())
    page.goto(address(stack, echo))
    for text in ("one", "two", "three"):
        say(page, text)
    page.get_by_text("Trying again; nothing you wrote is lost.").wait_for()
    page.reload()
    assert words(page, "mine") == ["one", "two", "three"]
    page.unroute_all()
    page.get_by_role("button", name="Try now").or_(page.locator(".theirs").first).first.click()
    assert wait_for_replies(page, 3, seconds=40) == ["one", "two", "three"]
    assert stored(stack, echo) == ["one", "two", "three"]
    assert page.locator(".fate").count() == 0


def test_the_page_shows_offline_and_clears_it_at_once(page: Page, stack: Stack, echo: Channel) -> None:
    page.goto(address(stack, echo))
    say(page, "before")
    wait_for_replies(page, 1)
    page.context.set_offline(True)
    page.get_by_role("alert").get_by_text("You are offline.").wait_for()
    say(page, "meanwhile")
    assert page.get_by_text("Sending…").is_visible()
    page.context.set_offline(False)
    assert wait_for_replies(page, 2, seconds=10) == ["before", "meanwhile"]
    page.get_by_role("alert").wait_for(state="hidden")


def test_what_the_server_refuses_stops_nothing_and_can_be_tried_again(page: Page, stack: Stack, echo: Channel) -> None:
    def refuse(route: Route) -> None:
        if "bad" in (route.request.post_data or ""):
            route.fulfill(status=413, json={"error": "The message is too long."})
        else:
            route.continue_()

    page.goto(address(stack, echo))
    page.route("**/messages*", refuse)
    say(page, "bad")
    page.get_by_text("Not sent. The message is too long.").wait_for()
    say(page, "good")
    assert wait_for_replies(page, 1) == ["good"]
    page.unroute_all()
    page.reload()
    page.get_by_role("button", name="Try again").click()
    assert wait_for_replies(page, 2) == ["good", "bad"]
    assert stored(stack, echo) == ["good", "bad"]


def test_a_text_over_the_limit_is_counted_and_refused_and_stays_whole(page: Page, stack: Stack, echo: Channel) -> None:
    page.goto(address(stack, echo))
    pasted = "🍵" + "x" * 4998 + "!"
    page.fill("#text", pasted)
    page.get_by_text("5,000 of 4,000 characters.").wait_for()
    page.press("#text", "Enter")
    assert page.get_by_role("button", name="Send message").is_disabled()
    assert (page.input_value("#text"), words(page, "mine")) == (pasted, [])
    assert page.get_attribute("#text", "aria-invalid") == "true"
    page.fill("#text", pasted[:4000])
    assert page.get_attribute("#text", "aria-invalid") == "false"
    page.press("#text", "Enter")
    assert wait_for_replies(page, 1) == [pasted[:4000]]
    assert page.locator("#length").is_hidden()


def test_a_channel_that_stops_is_not_online(page: Page, stack: Stack) -> None:
    channel = stack.add_channel("web", bot="echo")
    page.goto(address(stack, channel))
    assert page.locator("#state").inner_text() == "Online"
    say(page, "first")
    wait_for_replies(page, 1)
    pause = "INSERT INTO pause (scope, target, stops, since) VALUES ('channel', %s, 'handling', now()) RETURNING 1"
    stack.query(pause, str(channel.id))
    page.get_by_text("Answers are delayed").wait_for()
    say(page, "second")
    page.wait_for_function("() => !document.querySelector('.fate')")
    assert page.locator("#typing").is_hidden()


# ---------------------------------------------------------------- safe, and usable by everybody


def test_hostile_words_are_only_words(page: Page, stack: Stack, echo: Channel, complaints: Any) -> None:
    page.goto(address(stack, echo))
    say(page, HOSTILE)
    assert wait_for_replies(page, 1) == words(page, "mine") == [HOSTILE]
    assert page.evaluate("window.ran") is None
    links = page.locator(".bubble a")
    assert {link.get_attribute("href") for link in links.all()} == {"https://good.example/?q="}
    assert {link.get_attribute("rel") for link in links.all()} == {"noopener noreferrer"}
    assert page.locator(".bubble img").count() == 0


ACTIVE_HTML = """<b onclick="window.ran=1">bold</b><img src=x onerror="window.ran=1"><script>window.ran=1</script>
<a href="javascript:window.ran=1">bad</a> <a href="https://good.example/" onclick="window.ran=1">good</a>
<pre><code>c</code></pre>"""


def test_of_html_the_page_takes_the_elements_that_it_knows(page: Page, stack: Stack, echo: Channel) -> None:
    """Also of HTML that our server would never send."""
    show(page, stack, echo, {"text": "plain", "html": ACTIVE_HTML, "media": None})
    page.get_by_text("bold").wait_for()
    words = page.locator(".theirs .words").first
    assert words.evaluate("node => [...node.querySelectorAll('*')].map((each) => each.outerHTML)") == [
        "<b>bold</b>",
        '<a href="https://good.example/" target="_blank" rel="noopener noreferrer">good</a>',
        "<pre><code>c</code></pre>",
        "<code>c</code>",
    ]
    assert page.evaluate("window.ran") is None


def show(page: Page, stack: Stack, channel: Channel, reply: dict[str, Any]) -> None:
    """Let the page's polls bring one reply."""
    common = {"type": "reply", "sequence": 1, "id": "one", "at": "2026-01-01T00:00:00+00:00", "author": "bot"}
    items = [{**common, "choices": [], **reply}]
    state = {"cursor": "0.0", "mode": "bot", "busy": False, "answering": True, "colleague": None}

    def spoil(route: Route) -> None:
        if route.request.method == "POST":
            route.continue_()
        else:
            route.fulfill(json={**state, "items": items})

    page.goto(address(stack, channel))
    page.route("**/messages*", spoil)
    say(page, "the next")


def test_an_address_no_browser_reads_stops_nothing(page: Page, stack: Stack, echo: Channel, complaints: Any) -> None:
    show(page, stack, echo, {"text": "", "media": {"kind": "file", "url": "http://[", "name": "the file"}})
    page.get_by_text("the file").wait_for()
    page.unroute_all()
    assert "the next" in wait_for_replies(page, 2)


def test_a_page_that_polled_too_often_waits_and_says_nothing(page: Page, stack: Stack, echo: Channel) -> None:
    polls: list[str] = []

    def refuse_the_first(route: Route) -> None:
        if route.request.method == "GET":
            polls.append(route.request.url)
        if len(polls) == 1 and route.request.method == "GET":
            route.fulfill(status=429, headers={"Retry-After": "600"}, json={"error": "Too many at once."})
        else:
            route.continue_()

    page.clock.install()
    page.goto(address(stack, echo))
    page.route("**/messages*", refuse_the_first)
    with page.expect_response(lambda response: response.status == 429):
        say(page, "one")
    for text in ("two", "three"):
        say(page, text)
        page.wait_for_function("() => !document.querySelector('.fate')")
        assert page.locator("#notice").is_hidden()
    assert len(polls) == 1
    page.clock.fast_forward("10:00")
    assert wait_for_replies(page, 3) == ["one", "two", "three"]


def test_by_keyboard_alone(page: Page, stack: Stack, demo: Channel) -> None:
    page.goto(address(stack, demo))
    page.get_by_label("Your message").focus()
    page.keyboard.type("Hello")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("there")
    page.keyboard.press("Enter")
    wait_for_replies(page, 2)
    assert words(page, "mine") == ["Hello\nthere"]
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.type("Ada")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Order tea").focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Sencha").wait_for()
    assert page.evaluate("document.activeElement !== document.body")


def test_for_a_screen_reader(page: Page, stack: Stack, echo: Channel) -> None:
    page.goto(address(stack, echo))
    say(page, "Hello")
    wait_for_replies(page, 1)
    log = page.get_by_role("log", name="Messages")
    page.locator("#log[aria-live=polite]").wait_for()
    assert log.locator(".bubble").all_inner_texts() == ["You:\nHello", "Bot:\nHello"]
    assert page.get_by_role("button", name="Send message").is_disabled()


@pytest.mark.parametrize("width", [320, 360, 1280])
def test_nothing_sticks_out_at_any_width(page: Page, stack: Stack, echo: Channel, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 640})
    page.goto(address(stack, echo))
    say(page, "unbroken" * 60)
    wait_for_replies(page, 1)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    scroll = "document.getElementById('scroll')"
    assert page.evaluate(f"{scroll}.scrollWidth <= {scroll}.clientWidth")


# ---------------------------------------------------------------- the widget


@pytest.fixture(scope="module")
def shop_channel(stack: Stack, make_httpserver: HTTPServer) -> Channel:
    origins = ",".join(f"http://{host}:{make_httpserver.port}" for host in ("127.0.0.1", "localhost"))
    return stack.add_channel("web", bot="echo", allowed_origins=origins, identify_secret=SECRET)


@pytest.fixture(params=["127.0.0.1", "localhost"])
def shop(request: pytest.FixtureRequest, stack: Stack, shop_channel: Channel, httpserver: HTTPServer) -> str:
    """A customer's site with a strict policy of its own.

    On ``localhost`` it is another site than ours: browser contexts, as private windows, give our frame no storage.
    """
    public = stack.env["PUBLIC_URL"]
    page = SHOP.format(script=f"{public}/widget.js", channel=shop_channel.public_id)
    policy = {"Content-Security-Policy": SHOP_POLICY.format(origin=public)}
    httpserver.expect_request("/").respond_with_data(page, content_type="text/html", headers=policy)
    return f"http://{request.param}:{httpserver.port}"


def chat_frame(page: Page, channel: Channel) -> Frame:
    wait_until(lambda: (page.wait_for_timeout(50), any(channel.public_id in frame.url for frame in page.frames))[1], 10,
               "the chat's frame")  # fmt: skip
    return next(frame for frame in page.frames if channel.public_id in frame.url)


def test_the_widget_opens_answers_and_closes(page: Page, shop: str, shop_channel: Channel, complaints: Any) -> None:
    page.goto(shop)
    page.wait_for_function("() => window.ChatWidget")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    frame = chat_frame(page, shop_channel)
    frame.wait_for_selector("#empty:not([hidden])")
    frame.locator("#text:focus").wait_for()
    page.keyboard.type("Hello")
    page.keyboard.press("Enter")
    frame.wait_for_selector(".theirs")
    assert words(frame, "theirs") == ["Hello"]
    page.keyboard.press("Escape")
    page.wait_for_function("() => document.activeElement.tagName === 'DIV'")  # the widget's button, in its own tree
    page.reload()
    page.wait_for_function("() => window.ChatWidget")
    page.evaluate("ChatWidget.open()")
    frame = chat_frame(page, shop_channel)
    frame.wait_for_selector(".theirs")
    assert words(frame, "theirs") == ["Hello"]


def test_a_logged_in_customer_is_himself_and_leaves_no_token_behind(
    page: Page, stack: Stack, shop: str, shop_channel: Channel
) -> None:
    page.goto(shop)
    page.wait_for_function("() => window.ChatWidget")
    page.evaluate("hash => ChatWidget.identify('customer-7', hash)", tokens.identity_hash(SECRET, "customer-7"))
    page.evaluate("ChatWidget.open()")
    frame = chat_frame(page, shop_channel)
    say(frame, "It is me")
    frame.wait_for_selector(".theirs")
    users = stack.query('SELECT "user" FROM conversation WHERE channel_id = %s', shop_channel.id)
    assert ("i:customer-7",) in users
    for window in (page, frame):
        assert ":token" not in window.evaluate(KEPT)


def test_no_other_site_can_show_the_chat(page: Page, stack: Stack, echo: Channel, httpserver: HTTPServer) -> None:
    frame = f'<iframe src="{address(stack, echo)}"></iframe>'
    httpserver.expect_request("/").respond_with_data(frame, content_type="text/html")
    refused: list[str] = []
    page.on("console", lambda line: refused.append(line.text))
    page.goto(httpserver.url_for("/"))
    wait_until(lambda: (page.wait_for_timeout(50), refused)[1] != [], 10, "the browser's refusal")
    assert "frame-ancestors" in refused[0]
