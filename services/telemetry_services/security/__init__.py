"""Who gets in: tokens and their roles, TLS, and both kept up to date with their files while a service runs."""

from telemetry_services.security.guard import Guard

__all__ = ["Guard"]
