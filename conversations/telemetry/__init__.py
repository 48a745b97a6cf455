"""Logs and error reports about the work, without what people wrote.

logs.py           one JSON object a line
log_privacy.py    what a line may say
log_writer.py     renders and writes lines in a thread of its own, so that nobody waits
error_places.py   an exception as type and place
error_reports.py  the same for Sentry and for Celery's results
"""
