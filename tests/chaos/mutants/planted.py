"""The planted bugs: what each changes, and where the checker must find it.

The first eighteen are the classic ones of queues like ours, translated to this design; the others are its own races.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.chaos.mutants.edits import Constant, Ddl, Edit, Function, Lua, Sql, Wrapped, script, without_unique
from tests.chaos.mutants.sql_parts import MAIN, Assigned, Condition, Cte, NewCte, Ordered, Output


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A bug. ``case``: the run that must find it (see ``cases``); ``breaks``: what that run must see broken, one of."""

    name: str
    bug: str
    case: str
    breaks: frozenset[str]
    edits: tuple[Edit, ...]


def mutant(name: str, bug: str, case: str, breaks: str, *edits: Edit) -> Mutant:
    return Mutant(name=name, bug=bug, case=case, breaks=frozenset(breaks.split()), edits=edits)


# ---------------------------------------------------------------- pieces that several share

IDENTITY_NOT_UNIQUE = without_unique("message_identity_once", "identity")
NUMBER_NOT_UNIQUE = without_unique("message_sequence_once", "conversation_id, sequence")
LANE_NUMBERS = Ddl(script("lane_numbers"))
NUMBERS_MAY_MOVE = Ddl("DROP TRIGGER message_number_never_moves ON message")
NO_SWEEP = Wrapped("conversations.sweeping.sweeper:Sweeper.sweep", "sweep_nothing")

# Storing does not look for what is there.
STORE_BLINDLY = (
    Sql("store_messages", Condition("known", "identity", "n.identity"), "false"),
    Sql("store_messages", Cte("fresh"), "SELECT n.* FROM mine n"),
    IDENTITY_NOT_UNIQUE,
)


def asking_first(wrapper: str) -> Wrapped:
    """A look for the message before it is stored, without any lock."""
    return Wrapped("conversations.storing.rows:make_items", wrapper)


def whatever_the_lane_is(*names: str) -> Sql:
    """A turn's result is written whatever these columns of its lane are by now."""
    return Sql("commit_turns", Condition("ours", *names), "true")


# The database does not ask whether something before is unsettled; the head of the replies is moved by skip_settled.
SEND_IN_ANY_ORDER = (
    Sql("commit_sends", Condition("due", "b.sequence", "h.sequence"), "false"),
    Sql("commit_sends", Condition("meant", "b.sequence", "h.intent_sequence"), "false"),
    Sql("commit_sends", Assigned("lanes", "next_reply_sequence"), "c.next_reply_sequence"),
    Sql("commit_sends", Condition("lanes", "d.sequence", "c.last_reply_sequence"), "true"),
)


def fetched_by(order: str) -> tuple[Sql, Sql]:
    """The next replies of a lane in another order; ``%`` stands for the row."""
    return (Sql("fetch_replies", Ordered("p.sequence"), order.replace("%", "p")),
            Sql("fetch_replies", Ordered("c.id", "r.sequence"), f"c.id, {order.replace('%', 'r')}"))  # fmt: skip


# ---------------------------------------------------------------- the classics

CLASSICS = (
    mutant("answer_before_commit", "200 before COMMIT: the request is answered as soon as it is queued",
           "postgres_crash", "I1 I6", Wrapped("conversations.storing.intake:_write", "answer_before_commit")),
    mutant("no_sweeper", "nobody looks for what stayed behind", "unwoken", "I15 I22", NO_SWEEP),
    mutant("sequence_instead_of_counter", "numbers come from a SEQUENCE per lane, which duplicates use up", "plain",
           "I4", LANE_NUMBERS,
           Sql("store_messages", Output("known", "same"), "lane_number(n.conversation_id) > 0 AND {}"),
           Sql("store_messages", Output("numbered", "sequence"),
               "CASE WHEN NOT o.waits THEN lane_number(o.conversation_id) END"),
           Sql("store_messages", Output("lanes", "given"), "coalesce(max(u.sequence) - max(u.last_sequence), 0)")),
    mutant("select_then_insert", "de-duplication by SELECT, then INSERT, without a unique index", "plain", "I3",
           asking_first("only_those_not_in_table"), *STORE_BLINDLY),
    mutant("dedup_in_redis", "de-duplication only in Redis", "flushall", "I3 I1",
           asking_first("only_those_not_in_redis"), *STORE_BLINDLY),
    mutant("no_compare_and_set", "a turn's result is written without asking whether the lane is as it was read",
           "frozen_worker", "I7 I8 I9 I10", Ddl("ALTER TABLE conversation DROP CONSTRAINT head_is_in_the_lane"),
           whatever_the_lane_is("l.next_sequence", "i.sequence"), whatever_the_lane_is("l.epoch", "i.epoch"),
           whatever_the_lane_is("l.attempts", "i.attempts"), whatever_the_lane_is("l.mode"),
           whatever_the_lane_is("h.sequence", "i.sequence"), whatever_the_lane_is("h.status", "i.expect")),
    mutant("unlock_without_owner", "the lock is released by DEL, whoever holds it", "frozen_worker", "I24",
           Lua("release", script("release_anybodys"))),
    mutant("replies_apart", "state and mark in one transaction, replies in the next", "killed_handlers", "I10",
           Wrapped("conversations.handling.turn_stream:TurnStream.write", "replies_afterwards")),
    mutant("wake_is_the_only_trigger", "a stored message is due to nobody: only its wake brings it", "unwoken",
           "I15 I22",
           Sql("store_messages", Assigned("lanes", "due_at"),
               "CASE WHEN c.next_sequence <= c.last_sequence OR n.given = 0 THEN c.due_at END")),
    mutant("reply_overtakes_retry", "the sender takes the next reply while one is waiting for its retry",
           "platform_errors", "I13",
           Sql("fetch_replies", Condition(MAIN, "p.conversation_id", "c.id"),
               "{} AND coalesce(p.not_before, now()) <= now()"), *SEND_IN_ANY_ORDER),
    mutant("new_key_per_attempt", "every attempt has an idempotency key of its own", "accept_then_reset", "I12",
           Wrapped("conversations.delivering.results:outbound", "new_key")),
    mutant("retry_after_ignored", "what a platform says with 429 holds up nobody but the reply that was refused",
           "throttled", "I14", Wrapped("conversations.delivering.limiter:Limiter.block", "block_nobody")),
    mutant("exceptions_swallowed", "a bot's exception counts as an empty answer: the message is marked handled",
           "poison", "I7 I10 I22", Wrapped("conversations.handling.handler:Handler._judge", "swallow_exceptions")),
    mutant("early_ack_no_sweeper",
           "a wake is gone once it is received, and nobody looks for what its worker left behind", "killed_handlers",
           "I15 I22", Constant("django.conf:settings.CELERY_TASK_ACKS_LATE", False), NO_SWEEP),
    mutant("replies_by_time", "replies go out in the order of a timestamp", "plain", "I13",
           *fetched_by("%.created_at, %.key"), *SEND_IN_ANY_ORDER),
    mutant("text_cut_at_nul", "text ends at a NUL", "plain", "I1",
           Wrapped("conversations.postgres.storable_text:clean_text", "cut_at_nul")),
    mutant("large_body_refused", "a signed body that is longer than somebody expected is answered 400", "plain", "I21",
           Constant("django.conf:settings.WEBHOOK_BODY_CAP", 20_000),
           Constant("channels_ingest.webhooks.body:TooLarge.status", 400)),
    mutant("lock_over_the_turn", "the lane's row is locked in an open transaction while the bot thinks", "long_turns",
           "faults I19", Wrapped("conversations.turns:run", "in_a_transaction")),
)  # fmt: skip

# ---------------------------------------------------------------- races of this design

RACES = (
    mutant("latecomer_moves_numbers", "a message that comes late takes the number of the newest one, which moves on",
           "late", "I7 I8 I15 I22", NUMBERS_MAY_MOVE, Function("release_waiting", script("latecomers_change_places"))),
    mutant("duplicate_check_with_the_lock",
           "one statement locks the lane and looks for duplicates, in the snapshot from before the wait", "plain", "I3",
           Wrapped("conversations.storing.store_stream:StoreStream._statements", "without_locking_lanes"),
           Sql("store_messages", Cte("mine"), script("mine_locked_while_looking")), IDENTITY_NOT_UNIQUE),
    mutant("lanes_not_locked", "storing numbers messages without holding their lanes", "plain", "I3 I4",
           Sql("lock_lanes", Cte("locked"), "SELECT id FROM wanted"), NUMBER_NOT_UNIQUE),
    mutant("held_lane_counts_as_stored", "a message whose lane somebody else holds is answered 200", "plain", "I1",
           Wrapped("conversations.storing.store_stream:StoreStream._result", "locked_counts_as_stored")),
    mutant("hole_not_waited_for", "a message beyond a hole in the platform's numbers is released at once", "plain",
           "I5", Function("release_waiting", script("holes_do_not_matter"))),
    mutant("release_before_the_window", "a settle window is over at once", "plain", "I5",
           Function("release_waiting", script("windows_are_over"))),
    mutant("message_overtakes_retry", "a message that failed changes places with the one behind it", "plain",
           "I5 I8 I27", NUMBERS_MAY_MOVE, NUMBER_NOT_UNIQUE,
           Sql("commit_turns", NewCte("swapped"), script("message_overtakes_retry"))),
    mutant("suspects_all_blamed", "a worker's death spends an attempt of every message that it had in hand",
           "killed_handlers", "I27",
           Sql("revive_lanes", Assigned(MAIN, "suspect"),
               "{}, attempts = c.attempts + (c.mode = 'bot' AND c.next_sequence <= c.last_sequence)::integer")),
    mutant("everybody_blamed", "while a bot fails for everybody, each failure spends an attempt of its message",
           "bot_down", "faults I7", Wrapped("conversations.lanes.pauses:count_failure", "blame_the_message")),
    mutant("lock_taken_by_renewal", "renewing takes the lock from whoever holds it by now", "frozen_worker", "I24",
           Lua("extend", script("extend_anybodys"))),
    mutant("take_over_without_cancelled_through",
           "a take-over cancels what is pending, but a reply in flight that comes back is sent again", "take_over",
           "I26", Sql("take_over", Assigned("lane", "cancelled_through"), "cancelled_through")),
    mutant("old_turn_commits_after_take_over", "a turn that began before a take-over is written after it", "take_over",
           "I26", whatever_the_lane_is("l.epoch", "i.epoch"), whatever_the_lane_is("l.mode")),
    mutant("hand_back_skips_unseen", "handing back skips messages that the person never saw", "hand_back", "faults",
           Sql("skip_answered", Output("waiting", "shown"), "p.asks")),
    mutant("intent_without_claim", "an intent bears no name: nobody settles it when its sender dies", "killed_senders",
           "I11 I15", Ddl("ALTER TABLE reply DROP CONSTRAINT claimed_while_sending"),
           Sql("commit_sends", Assigned("intents", "claimed_by"), "NULL"),
           Sql("commit_sends", Condition("due", "p.claimed_by", "h.claim"), "true")),
    mutant("result_of_anothers_attempt", "a sender that was taken for dead writes its result over another's attempt",
           "frozen_sender", "I11 I12 I13", Sql("commit_sends", Condition("due", "p.intent_number", "h.number"), "true"),
           Sql("commit_sends", Condition("due", "p.claimed_by", "h.claim"), "true")),
    mutant("unknown_counts_as_sent", "a send whose outcome is unknown is taken for sent", "platform_errors", "I11",
           Wrapped("conversations.delivering.results:judge", "unknown_is_sent")),
    mutant("failure_after_sent_ignored", "a reply that failed after it was sent stays sent", "plain", "I28",
           Sql("apply_statuses", Assigned("joined", "status"), "r.status")),
    mutant("sorry_overtakes", "the sorry text goes out before what was said earlier", "sorry_behind", "I13",
           *fetched_by("(%.author <> 'system'), %.sequence"), *SEND_IN_ANY_ORDER),
    mutant("limits_per_process", "each sender keeps a channel's limits for itself alone", "burst", "I14 faults",
           Wrapped("conversations.delivering.limiter:Limiter._ask", "ask_nobody")),
    mutant("tasks_pile_up", "each hint pushes a task, however many wait", "workers_away", "faults",
           Lua("ring", script("ring_always"))),
    mutant("bell_never_cleared", "the bell does not expire, and whoever takes the last hint does not silence it",
           "plain", "I15 I18 I22", Lua("ring", script("ring_for_ever")),
           Lua("take", script("take_and_leave_the_bell"))),
    mutant("ids_taken_and_dropped", "a task takes hints and gives their conversations to nobody", "plain", "I15 I22",
           Wrapped("conversations.waking.doorbell:answer", "take_and_drop")),
    mutant("ring_in_the_committer", "the thread that stores rings itself, and waits for Redis", "redis_silent",
           "faults", Wrapped("conversations.waking.wake:Waker.put", "ring_at_once")),
)  # fmt: skip

MUTANTS = {one.name: one for one in (*CLASSICS, *RACES)}
