"""Schedules: the slots of a cron expression in a time zone, which of them are due, and what makes others fire them.

What a schedule may say is in `schemas.pipeline` and `schemas.cron`; running what is due is `firing`'s work.
"""
