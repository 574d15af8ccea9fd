"""Requests that arrive for this pod."""
