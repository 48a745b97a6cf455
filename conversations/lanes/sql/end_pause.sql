-- Ends the count and the pause after a success, unless staff stopped it.
-- scope, target, stops. No rows. Index: pause_once.
DELETE FROM pause WHERE scope = %(scope)s AND target = %(target)s AND stops = %(stops)s AND NOT by_staff
