"""What is said about the work, and never what people wrote.

logs.py           one JSON object a line
error_places.py   an exception as type and place
error_reports.py  the same for Sentry and for Celery's results
"""
