"""What a platform is told beside messages, outside the lane.

acknowledgements.py  that a button press arrived, or that a turn takes long
checkouts.py         whether a payment may go on, asked of the bot at once
"""
