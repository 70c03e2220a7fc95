"""What holds for every test: properties are judged by their result, never by how long the machine took."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("edfn-agent", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edfn-agent")
