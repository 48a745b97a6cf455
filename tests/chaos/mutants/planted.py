"""The planted bugs: what each changes, and where the checker must find it.

The first eighteen are the classic ones of queues like ours, translated to this design; the others are its own races.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.chaos.mutants.edits import Code, Constant, Ddl, Edit, Function, Lua, Sql, without_unique


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
NUMBERS_MAY_MOVE = Ddl("DROP TRIGGER message_number_never_moves ON message")
NO_SWEEP = Code("conversations.sweeping.sweeper:Sweeper.sweep", "self._try(self._recover_dead)", "return False")

# Storing does not look for what is there.
STORE_BLINDLY = (
    Sql("store_messages", "WHERE identity = n.identity LIMIT 1", "WHERE identity = n.identity AND false LIMIT 1"),
    Sql("store_messages", "SELECT DISTINCT ON (n.identity) n.* FROM mine n", "SELECT n.* FROM mine n"),
    IDENTITY_NOT_UNIQUE,
)


def asking_first(where: str) -> Code:
    """A look for the message before it is stored, without any lock."""
    items = "items = [item for each in requests for item in _items(each)]"
    new = f"items = PLANTED.{where}(items) or [Item(items[0].receipt)]"
    return Code("conversations.storing.intake:store", items, f"{items}; {new}")


# The database does not ask whether something before is unsettled; the head of the replies is moved by skip_settled.
SEND_IN_ANY_ORDER = (
    Sql("commit_sends", "b.sequence < h.intent_sequence", "b.sequence < h.intent_sequence AND false"),
    Sql("commit_sends", "b.sequence < h.sequence", "b.sequence < h.sequence AND false"),
    Sql("commit_sends", "coalesce(i.intent_sequence,", "coalesce(NULL::bigint,"),
    Sql("commit_sends", "greatest(d.sequence + 1, c.next_reply_sequence)", "c.next_reply_sequence"),
    Sql("commit_sends", "WHEN d.sequence < c.last_reply_sequence THEN", "WHEN true THEN"),
)


def fetched_by(order: str) -> tuple[Sql, Sql]:
    """The next replies of a lane in another order; ``%`` stands for the row."""
    return (
        Sql("fetch_replies", "ORDER BY p.sequence LIMIT", f"ORDER BY {order.replace('%', 'p')} LIMIT"),
        Sql("fetch_replies", "ORDER BY c.id, r.sequence", f"ORDER BY c.id, {order.replace('%', 'r')}"),
    )


LANE_NUMBERS = Ddl(
    """CREATE FUNCTION lane_number(lane bigint) RETURNS bigint LANGUAGE plpgsql AS $$
       BEGIN
         IF to_regclass('lane_' || lane) IS NULL THEN EXECUTE 'CREATE SEQUENCE lane_' || lane; END IF;
         RETURN nextval('lane_' || lane);
       END $$"""
)

# ---------------------------------------------------------------- the classics

CLASSICS = (
    mutant(
        "answer_before_commit",
        "200 before COMMIT: the request is answered as soon as it is queued",
        "postgres_crash",
        "I1 I6",
        Code(
            "conversations.storing.intake:_write",
            "writer().write_all(stream, items, seconds, size)",
            "(writer().submit_all(stream, items, lambda tickets: None, deadline=time.monotonic() + seconds, size=size),"
            " [('stored', 0, 0)] * len(items))[1]",
        ),
    ),
    mutant("no_sweeper", "nobody looks for what stayed behind", "unwoken", "I15 I22", NO_SWEEP),
    mutant(
        "sequence_instead_of_counter",
        "numbers come from a SEQUENCE per lane, which duplicates use up",
        "plain",
        "I4",
        LANE_NUMBERS,
        Sql(
            "store_messages",
            "SELECT n.ord, m.content_hash",
            "SELECT n.ord, lane_number(n.conversation_id) > 0 AND m.content_hash",
        ),
        Sql(
            "store_messages",
            "o.last_sequence + row_number() OVER (PARTITION BY o.conversation_id, o.waits ORDER BY o.ord)",
            "lane_number(o.conversation_id)",
        ),
        Sql(
            "store_messages",
            "count(u.sequence) AS given",
            "coalesce(max(u.sequence) - max(u.last_sequence), 0) AS given",
        ),
    ),
    mutant(
        "select_then_insert",
        "de-duplication by SELECT, then INSERT, without a unique index",
        "plain",
        "I3",
        asking_first("not_in_table"),
        *STORE_BLINDLY,
    ),
    mutant(
        "dedup_in_redis",
        "de-duplication only in Redis",
        "flushall",
        "I3 I1",
        asking_first("not_in_redis"),
        *STORE_BLINDLY,
    ),
    mutant(
        "no_compare_and_set",
        "a turn's result is written without asking whether the lane is as it was read",
        "frozen_worker",
        "I7 I8 I9 I10",
        Ddl("ALTER TABLE conversation DROP CONSTRAINT head_is_in_the_lane"),
        Sql("commit_turns", "AND l.next_sequence = i.sequence", ""),
        Sql("commit_turns", "AND l.epoch = i.epoch", ""),
        Sql("commit_turns", "AND l.attempts = i.attempts", ""),
        Sql("commit_turns", "AND l.mode = 'bot' LIMIT 1", "LIMIT 1"),
        Sql("commit_turns", "AND h.sequence = i.sequence AND h.status = i.expect", ""),
    ),
    mutant(
        "unlock_without_owner",
        "the lock is released by DEL, whoever holds it",
        "frozen_worker",
        "I24",
        Lua("release", "if redis.call('HGET', key, 'o') ~= ARGV[1] then", "if false then"),
    ),
    mutant(
        "replies_apart",
        "state and mark in one transaction, replies in the next",
        "killed_handlers",
        "I10",
        Code(
            "conversations.handling.turn_stream:TurnStream.write",
            "judged = [item.verdict for item in items]",
            "whole = [item.verdict for item in items]; "
            "judged = [msgspec.structs.replace(one, replies=None) for one in whole]",
        ),
        Code(
            "conversations.handling.turn_stream:TurnStream.write",
            "    return [LANE_LOCKED if word",
            "    rows = PLANTED.write_replies(connection, whole, rows)\n    return [LANE_LOCKED if word",
        ),
    ),
    mutant(
        "wake_is_the_only_trigger",
        "a stored message is due to nobody: only its wake brings it",
        "unwoken",
        "I15 I22",
        Sql("store_messages", "c.wait_until, now() + interval '3 s') END,", "c.wait_until, NULL) END,"),
    ),
    mutant(
        "reply_overtakes_retry",
        "the sender takes the next reply while one is waiting for its retry",
        "platform_errors",
        "I13",
        Sql(
            "fetch_replies",
            "WHERE p.conversation_id = c.id AND p.sequence",
            "WHERE p.conversation_id = c.id AND coalesce(p.not_before, now()) <= now() AND p.sequence",
        ),
        *SEND_IN_ANY_ORDER,
    ),
    mutant(
        "new_key_per_attempt",
        "every attempt has an idempotency key of its own",
        "accept_then_reset",
        "I12",
        Code("conversations.delivering.results:outbound", "key=str(reply.key)", "key=str(uuid.uuid4())"),
    ),
    mutant(
        "retry_after_ignored",
        "what a platform says with 429 holds up nobody but the reply that was refused",
        "throttled",
        "I14",
        Code("conversations.delivering.limiter:Limiter.block", "name = self._name(request, bucket)", "return"),
    ),
    mutant(
        "exceptions_swallowed",
        "a bot's exception counts as an empty answer: the message is marked handled",
        "poison",
        "I7 I10 I22",
        Code("conversations.handling.handler:Handler._judge", "if not output.error_type:", "if True:"),
    ),
    mutant(
        "early_ack_no_sweeper",
        "a wake is gone once it is received, and nobody looks for what its worker left behind",
        "killed_handlers",
        "I15 I22",
        Constant("django.conf:settings.CELERY_TASK_ACKS_LATE", False),
        NO_SWEEP,
    ),
    mutant(
        "replies_by_time",
        "replies go out in the order of a timestamp",
        "plain",
        "I13",
        *fetched_by("%.created_at, %.key"),
        *SEND_IN_ANY_ORDER,
    ),
    mutant(
        "text_cut_at_nul",
        "text ends at a NUL",
        "plain",
        "I1",
        Code(
            "conversations.postgres.storable_text:clean_text",
            "_UNSTORABLE.sub(REPLACEMENT, text)",
            "_UNSTORABLE.split(text)[0]",
        ),
    ),
    mutant(
        "large_body_refused",
        "a signed body that is longer than somebody expected is answered 400",
        "plain",
        "I21",
        Constant("django.conf:settings.WEBHOOK_BODY_CAP", 20_000),
        Constant("channels_ingest.webhooks.body:TooLarge.status", 400),
    ),
    mutant(
        "lock_over_the_turn",
        "the lane's row is locked in an open transaction while the bot thinks",
        "long_turns",
        "faults I19",
        Code(
            "conversations.handling.handler:Handler._run",
            "turns.run(function, task)",
            "PLANTED.in_transaction(held.id, turns.run, function, task)",
        ),
    ),
)

# ---------------------------------------------------------------- races of this design

RACES = (
    mutant(
        "latecomer_moves_numbers",
        "a message that comes late takes the number of the newest one, which moves on",
        "late",
        "I7 I8 I15 I22",
        NUMBERS_MAY_MOVE,
        Function(
            "release_waiting",
            "why := 'late: a later one had its number already';",
            "why := 'late: a later one had its number already';\n"
            "        UPDATE message SET sequence = c.last_sequence + 1 WHERE conversation_id = lane"
            " AND sequence = c.last_sequence;",
        ),
        Function(
            "release_waiting",
            "numbers[released] := c.last_sequence;",
            "numbers[released] := c.last_sequence - (SELECT count(*) FROM message WHERE conversation_id = lane"
            " AND sequence = c.last_sequence);",
        ),
    ),
    mutant(
        "duplicate_check_with_the_lock",
        "one statement locks the lane and looks for duplicates, in the snapshot from before the wait",
        "plain",
        "I3",
        Code(
            "conversations.storing.intake:StoreStream._statements",
            'statements["lock"] = (sql("lock_lanes"), {"items": lanes})',
            "pass",
        ),
        Sql(
            "store_messages",
            "AND l.id = ANY (string_to_array(current_setting('app.locked', true), ',')::bigint[]) LIMIT 1",
            "LIMIT 1 FOR NO KEY UPDATE",
        ),
        IDENTITY_NOT_UNIQUE,
    ),
    mutant(
        "lanes_not_locked",
        "storing numbers messages without holding their lanes",
        "plain",
        "I3 I4",
        Sql("lock_lanes", "FOR NO KEY UPDATE SKIP LOCKED", ""),
        NUMBER_NOT_UNIQUE,
    ),
    mutant(
        "held_lane_counts_as_stored",
        "a message whose lane somebody else holds is answered 200",
        "plain",
        "I1",
        Code(
            "conversations.storing.intake:StoreStream._result",
            'LANE_LOCKED if word == "busy" else (word, lane,',
            '("duplicate" if word == "busy" else word, lane,',
        ),
    ),
    mutant(
        "hole_not_waited_for",
        "a message beyond a hole in the platform's numbers is released at once",
        "plain",
        "I5",
        Function("release_waiting", "externals[ahead] - 1 <= c.last_key OR", "externals[ahead] > c.last_key OR"),
    ),
    mutant(
        "release_before_the_window",
        "a settle window is over at once",
        "plain",
        "I5",
        Function("release_waiting", "(everything OR w.release_at <= moment)", "true"),
    ),
    mutant(
        "message_overtakes_retry",
        "a message that failed changes places with the one behind it",
        "plain",
        "I5 I8 I27",
        NUMBERS_MAY_MOVE,
        NUMBER_NOT_UNIQUE,
        Sql(
            "commit_turns",
            "states AS (",
            """swapped AS (
  UPDATE message m SET sequence = 2 * o.sequence + 1 - m.sequence
    FROM ours o WHERE m.conversation_id = o.id AND o.expect = 'pending' AND o.status = 'pending'
     AND m.sequence IN (o.sequence, o.sequence + 1)
     AND EXISTS (SELECT FROM message x WHERE x.conversation_id = o.id AND x.sequence = o.sequence + 1
                    AND x.status = 'pending')),
states AS (""",
        ),
    ),
    mutant(
        "suspects_all_blamed",
        "a worker's death spends an attempt of every message that it had in hand",
        "killed_handlers",
        "I27",
        Sql(
            "revive_lanes",
            "SET suspect =",
            "SET attempts = c.attempts + (c.mode = 'bot' AND c.next_sequence <= c.last_sequence)::integer, suspect =",
        ),
    ),
    mutant(
        "everybody_blamed",
        "while a bot fails for everybody, each failure spends an attempt of its message",
        "bot_down",
        "faults I7",
        Code(
            "conversations.handling.handler:Handler._judge",
            "paused = pauses.count_failure(",
            "paused = False and pauses.count_failure(",
        ),
    ),
    mutant(
        "lock_taken_by_renewal",
        "renewing takes the lock from whoever holds it by now",
        "frozen_worker",
        "I24",
        Lua("extend", "if not owner or owner == ARGV[1] then", "if true then"),
    ),
    mutant(
        "take_over_without_cancelled_through",
        "a take-over cancels what is pending, but a reply in flight that comes back is sent again",
        "take_over",
        "I26",
        Sql("take_over", "cancelled_through = last_reply_sequence", "cancelled_through = cancelled_through"),
    ),
    mutant(
        "old_turn_commits_after_take_over",
        "a turn that began before a take-over is written after it",
        "take_over",
        "I26",
        Sql("commit_turns", "AND l.epoch = i.epoch", ""),
        Sql("commit_turns", "AND l.mode = 'bot' LIMIT 1", "LIMIT 1"),
    ),
    mutant(
        "hand_back_skips_unseen",
        "handing back skips messages that the person never saw",
        "hand_back",
        "faults",
        Sql("hand_back", "OR m.sequence > %(seen_last)s", ""),
    ),
    mutant(
        "intent_without_claim",
        "an intent bears no name: nobody settles it when its sender dies",
        "killed_senders",
        "I11 I15",
        Sql("commit_sends", "claimed_by = i.intent_claim,", "claimed_by = NULL,"),
        Sql("commit_sends", "AND p.claimed_by IS NOT DISTINCT FROM h.claim", ""),
    ),
    mutant(
        "result_of_anothers_attempt",
        "a sender that was taken for dead writes its result over another's attempt",
        "frozen_sender",
        "I11 I12 I13",
        Sql("commit_sends", "AND p.attempts = h.attempts AND p.claimed_by IS NOT DISTINCT FROM h.claim", ""),
    ),
    mutant(
        "unknown_counts_as_sent",
        "a send whose outcome is unknown is taken for sent",
        "platform_errors",
        "I11",
        Code(
            "conversations.delivering.results:judge",
            "now = msgspec.structs.replace(reply",
            "outcome = Sent() if isinstance(outcome, Unknown) else outcome\n    now = msgspec.structs.replace(reply",
        ),
    ),
    mutant(
        "sorry_overtakes",
        "the sorry text goes out before what was said earlier",
        "sorry_behind",
        "I13",
        *fetched_by("(%.author <> 'system'), %.sequence"),
        *SEND_IN_ANY_ORDER,
    ),
    mutant(
        "limits_per_process",
        "each sender keeps a channel's limits for itself alone",
        "burst",
        "I14 faults",
        Code("conversations.delivering.limiter:Limiter._ask", "if time.monotonic() < self._away_until:", "if True:"),
        Code("conversations.delivering.limiter:Limiter._alone", "max(1, self._senders())", "1"),
    ),
    mutant(
        "wake_cap_ignored",
        "wakes are published however many wait",
        "workers_away",
        "faults",
        Code("conversations.waking.wake:Waker.room", "return WAITING - length", "return WAITING"),
    ),
)

MUTANTS = {one.name: one for one in (*CLASSICS, *RACES)}
