"""Peers that misbehave on purpose, and clients that check every byte they get."""
