from tests.registry.conftest import clock, fresh_database, registry, url

__all__ = ["clock", "fresh_database", "registry", "url"]
