"""The storage room: how a storage is opened, and what trials leave in it."""
