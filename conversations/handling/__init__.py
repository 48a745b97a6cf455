"""Handling, step 3: the next message of a lane -> the bot -> one COMMIT.

handler.py           holds lanes, reads their heads, runs turns, commits verdicts
backpressure.py      how many lanes of a queue a process takes
turn_threads.py      the threads on which plain functions run
async_turns.py       the event loop on which async functions run, and who holds it up
isolated_turn.py     a turn in a process of its own, after a crash or a turn that never ended
acknowledgements.py  tells a platform that a button press arrived
verdicts.py          what a turn comes to
turn_stream.py       writes verdicts, numbers messages that waited for their order
"""
