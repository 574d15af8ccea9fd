"""The API client and controller runtime: REST, reflector, informer, work queue, events.

Every part of Meshwork that reads or writes the API does it through this room, like any outsider.
"""
