"""Handling, step 3: the next message of a lane -> the bot -> one COMMIT.

handler.py           holds lanes, reads their heads, commits verdicts, releases lanes
held.py              a lane in the handler's hands, and the turn of its head
turn_runner.py       runs turns and limits their time; what counts of them
backpressure.py      how many lanes of a queue a process takes
turn_threads.py      the threads on which plain functions run
async_turns.py       the event loop on which async functions run, and who holds it up
isolated_turn.py     a turn in a process of its own, after a crash or a turn that never ended
verdicts.py          what a turn comes to
turn_stream.py       writes verdicts, numbers messages that waited for their order
"""
