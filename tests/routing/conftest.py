from tests.registry.conftest import clock, fresh_postgresql, fresh_sqlite, prepared, registry, url

__all__ = ["clock", "fresh_postgresql", "fresh_sqlite", "prepared", "registry", "url"]
