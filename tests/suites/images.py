"""The promises of every image store. A subclass gives the services."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocidiff.errors import NotFoundError
from ocidiff.oci import media_type
from ocidiff.oci.descriptor import Descriptor
from ocidiff.services.bundle import Services
from ocidiff.services.images import understood


def stored(services: Services, text: str) -> Descriptor:
    """A document in the store, for names to mean."""
    return services.content.write(text.encode(), media_type.MANIFEST)


class ImagesSuite:
    """The promises, as tests."""

    @pytest.fixture
    def services(self, tmp_path: Path) -> Services:
        raise NotImplementedError

    def test_a_name_means_what_was_put_last(self, services: Services) -> None:
        first, second = stored(services, '{"a":1}'), stored(services, '{"a":2}')
        services.images.put("app:v1", first)
        assert understood(services.images.entry("app:v1")).digest == first.digest
        services.images.put("app:v1", second)
        assert understood(services.images.entry("app:v1")).digest == second.digest
        assert [entry.name for entry in services.images.list()] == ["app:v1"]

    def test_several_names_may_mean_one_image(self, services: Services) -> None:
        target = stored(services, "{}")
        for name in ("app:v1", "app:v2"):
            services.images.put(name, target)
        assert sorted(str(entry.name) for entry in services.images.list()) == ["app:v1", "app:v2"]

    def test_many_names_are_given_at_once(self, services: Services) -> None:
        first, second = stored(services, '{"a":1}'), stored(services, '{"a":2}')
        services.images.put("app:v1", first)
        services.images.put_all({"app:v1": second, "app:v2": first, "app:v3": second})
        found = {str(entry.name): entry.digest for entry in services.images.list()}
        assert found == {"app:v1": second.digest, "app:v2": first.digest, "app:v3": second.digest}

    def test_a_dropped_name_is_gone_and_others_stay(self, services: Services) -> None:
        target = stored(services, "{}")
        for name in ("app:v1", "app:v2"):
            services.images.put(name, target)
        services.images.drop(services.images.entry("app:v1"))
        with pytest.raises(NotFoundError, match="app:v1"):
            services.images.entry("app:v1")
        assert services.images.entry("app:v2").digest == target.digest

    def test_a_missing_name_is_not_found(self, services: Services) -> None:
        with pytest.raises(NotFoundError, match="nothing"):
            services.images.entry("nothing")
        assert list(services.images.list()) == []

    def test_what_is_not_in_the_store_gets_no_name(self, services: Services) -> None:
        target = stored(services, "{}")
        services.content.delete(target.digest)
        with pytest.raises(NotFoundError, match=target.digest):
            services.images.put("app:v1", target)
        assert list(services.images.list()) == []
