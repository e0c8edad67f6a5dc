"""Commit, create and unpack on the services of a store: they need nothing else of it. A subclass gives the services."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocidiff.errors import AlreadyExistsError, NotFoundError, UsageError
from ocidiff.image import lookup
from ocidiff.image.changes import ConfigChanges
from ocidiff.image.commit import commit
from ocidiff.image.create import create
from ocidiff.image.image import Image
from ocidiff.image.merge import Merge
from ocidiff.image.request import Request, Step
from ocidiff.image.unpack import unpack
from ocidiff.layer.apply_options import ApplyOptions
from ocidiff.layer.engine import Engine
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.operand import Tree
from ocidiff.layer.options import LayerOptions
from ocidiff.mounts.kernel import directory_of
from ocidiff.oci.media_type import Format
from ocidiff.services.bundle import Services
from ocidiff.services.containers import Container
from ocidiff.services.snapshots import Kind


class UseCasesSuite:
    """The use-cases, as tests."""

    @pytest.fixture
    def services(self, tmp_path: Path, engine: Engine) -> Services:
        raise NotImplementedError

    def commit(
        self,
        services: Services,
        engine: Engine,
        source: Tree | Container,
        name: str,
        base: str | None = None,
        merge: Merge | None = None,
        layers: int = 1,
    ) -> Image:
        """An image of a directory or of a container."""
        request = Request(
            source=source,
            name=name,
            base=base,
            lower=None,
            platform=None,
            step=Step(comment="a step"),
            changes=ConfigChanges.of(["CMD run"]),
            annotations={},
            family=Format.OCI,
            options=LayerOptions(),
            limits=Limits(),
            merge=merge,
            layers=layers,
        )
        return commit(services, request, engine=engine, monitor=Monitor())

    def unpacked(self, services: Services, engine: Engine, name: str, target: Path) -> dict[str, str]:
        """The files at the top of an image's tree, and what is in them."""
        image = lookup.find_image(services, name, None)
        options = ApplyOptions()
        unpack(services.content, image, str(target), index=None, engine=engine, options=options, monitor=Monitor())
        return {path.name: path.read_text() for path in target.iterdir()}

    def test_a_directory_becomes_an_image_and_a_tree_again(self, services: Services, engine: Engine, tmp_path: Path) -> None:
        tree = tmp_path / "tree"
        tree.mkdir()
        (tree / "file").write_text("1")
        first = self.commit(services, engine, tree, "app:v1")
        (tree / "file").write_text("12")
        (tree / "new").write_text("n")
        second = self.commit(services, engine, tree, "app:v2", base="app:v1")
        assert [step.comment for step in second.config.history] == ["a step", "a step"]
        assert second.manifest.layers[0] == first.manifest.layers[0]
        assert second.config.config.cmd[-1] == "run"
        assert self.unpacked(services, engine, "app:v1", tmp_path / "one") == {"file": "1"}
        assert self.unpacked(services, engine, "app:v2", tmp_path / "two") == {"file": "12", "new": "n"}
        assert services.leases.held() == []

    def test_a_container_is_committed_and_created_from(self, services: Services, engine: Engine, tmp_path: Path) -> None:
        tree = tmp_path / "tree"
        tree.mkdir()
        for name in ("kept", "gone"):
            (tree / name).write_text(name)
        self.commit(services, engine, tree, "app:v1")
        work = self._create(services, "app:v1", "work")
        with directory_of(services.snapshotter(work.driver).mounts(work.snapshot)) as root:
            Path(root, "gone").unlink()
            Path(root, "new").write_text("n")
        image = self.commit(services, engine, work, "app:v2")
        assert image.layer is not None
        assert (image.layer.added, image.layer.deleted) == (1, 1)
        assert self.unpacked(services, engine, "app:v2", tmp_path / "out") == {"kept": "kept", "new": "n"}
        again = self._create(services, "app:v2", "again")
        with directory_of(services.snapshotter(again.driver).mounts(again.snapshot)) as root:
            assert sorted(path.name for path in Path(root).iterdir()) == ["kept", "new"]

    def test_a_container_without_a_change_adds_no_layer(self, services: Services, engine: Engine, tmp_path: Path) -> None:
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree/file").touch()
        base = self.commit(services, engine, tmp_path / "tree", "app:v1")
        image = self.commit(services, engine, self._create(services, "app:v1", "work"), "app:v2")
        assert image.layer is None
        assert image.manifest.layers == base.manifest.layers

    def test_a_change_is_written_as_layers_of_which_a_later_commit_writes_some(
        self, services: Services, engine: Engine, tmp_path: Path
    ) -> None:
        tree = tmp_path / "tree"
        tree.mkdir()
        (tree / "gone").write_text("g")
        self.commit(services, engine, tree, "app:v1")
        work = self._create(services, "app:v1", "work")
        with directory_of(services.snapshotter(work.driver).mounts(work.snapshot)) as root:
            Path(root, "gone").unlink()
            for name in "abcdef":
                Path(root, name, "sub").mkdir(parents=True)
                Path(root, name, "sub/file").write_text(name)
        first = self.commit(services, engine, work, "app:v2", layers=4)
        assert len(first.layers) == 4
        with directory_of(services.snapshotter(work.driver).mounts(work.snapshot)) as root:
            Path(root, "c/sub/file").write_text("changed")
        second = self.commit(services, engine, work, "app:v3", layers=4)
        assert sum(one.descriptor != two.descriptor for one, two in zip(first.layers, second.layers, strict=True)) == 1
        assert sum(layer.reused_bytes > 0 for layer in second.layers) == 3
        again = self._create(services, "app:v3", "again")
        with directory_of(services.snapshotter(again.driver).mounts(again.snapshot)) as root:
            found = {str(path.relative_to(root)): path.read_text() for path in Path(root).rglob("file")}
            assert found == {f"{name}/sub/file": "changed" if name == "c" else name for name in "abcdef"}
            assert not Path(root, "gone").exists()
        assert services.leases.held() == []

    def test_the_layers_of_a_container_become_one(self, services: Services, engine: Engine, tmp_path: Path) -> None:
        tree = tmp_path / "tree"
        tree.mkdir()
        for name in ("kept", "gone"):
            (tree / name).write_text(name)
        self.commit(services, engine, tree, "app:v1")
        work = self._create(services, "app:v1", "work")
        with directory_of(services.snapshotter(work.driver).mounts(work.snapshot)) as root:
            Path(root, "gone").unlink()
            Path(root, "new").write_text("n")
        image = self.commit(services, engine, work, "app:v2", merge=Merge())
        assert len(image.manifest.layers) == len(image.config.rootfs.diff_ids) == 1
        assert [step.empty_layer for step in image.config.history] == [True, False]
        assert self.unpacked(services, engine, "app:v2", tmp_path / "out") == {"kept": "kept", "new": "n"}
        again = self._create(services, "app:v2", "again")
        with directory_of(services.snapshotter(again.driver).mounts(again.snapshot)) as root:
            assert sorted(path.name for path in Path(root).iterdir()) == ["kept", "new"]
            Path(root, "more").write_text("m")
        third = self.commit(services, engine, again, "app:v3", merge=Merge(max_layers=2))
        assert third.manifest.layers[0] == image.manifest.layers[0]
        assert services.leases.held() == []

    def test_a_failure_leaves_no_name_lease_or_temporary_snapshot(
        self, services: Services, engine: Engine, tmp_path: Path
    ) -> None:
        (tmp_path / "tree").mkdir()
        with pytest.raises(NotFoundError):
            self.commit(services, engine, tmp_path / "tree", "app:v1", base="none:v1")
        self.commit(services, engine, tmp_path / "tree", "app:v1")
        self._create(services, "app:v1", "work")
        with pytest.raises(AlreadyExistsError):
            self._create(services, "app:v1", "work")
        with pytest.raises(UsageError):
            self._create(services, "app:v1", "")
        assert [entry.name for entry in services.images.list()] == ["app:v1"]
        assert services.leases.held() == []
        kinds = [snapshot.kind for snapshot in services.snapshotter(None).walk()]
        assert kinds.count(Kind.ACTIVE) == 1
        assert Kind.VIEW not in kinds

    def _create(self, services: Services, image: str, name: str) -> Container:
        with services.leased() as leased:
            return create(leased, lookup.find_image(leased, image, None), name, None, limits=Limits(), monitor=Monitor())
