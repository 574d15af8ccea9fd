"""The loop set-up, owned tasks, sockets and the original destination of a redirected connection.

The only place that may call `asyncio.create_task`.
"""
