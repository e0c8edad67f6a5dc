"""Secrets are found by what they are, and honest files are left alone."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

import pytest

import ocidiff
from ocidiff.layer.options import Compression
from ocidiff.report.rules import MAX_BYTES, RULES, matching
from support import probes

BODY = "\n".join(base64.b64encode(bytes(range(48))).decode() for _ in range(4))
# Put together here, so that no scanner takes this file for a leak.
SECRETS = {
    "root/.ssh/id_ed25519": f"-----BEGIN OPENSSH PRIVATE {'KEY'}-----\n{BODY}\n",
    "etc/tls.pem": f"text\n-----BEGIN RSA PRIVATE {'KEY'}-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES\n\n{BODY}\n",
    "root/secret.asc": f"-----BEGIN PGP PRIVATE {'KEY'} BLOCK-----\n\n{BODY}\n",
    "app/google.json": '{"private_key": "-----BEGIN PRIVATE ' + "KEY-----\\\\n" + "A" * 64 + '"}',
    "root/.aws/credentials": "[default]\naws_secret_access_key = x\n",
    "app/settings.py": f"key = '{'AKIA'}ABCDEFGHIJKLMNOP'\n",
    "app/token": f"{'ghp'}_{'a' * 36}\n",
    "app/fine": f"{'github'}_pat_{'a' * 22}_{'b' * 59}\n",
    "app/lab": f"x={'glpat'}-{'a' * 20}\n",
    "app/chat": f"{'xoxb'}-123456789-{'a' * 24}\n",
    "app/maps.js": f"key='{'AIza'}{'b' * 35}'",
    "app/pay": f"{'sk'}_live_{'a' * 24}",
    "app/node": f"{'npm'}_{'a' * 36}",
    "app/pypi": f"{'pypi'}-AgEIcHlwaS5vcmc{'a' * 60}",
    "app/hub": f"{'hf'}_{'a' * 34}",
    "app/azure": f"AccountKey={'a' * 86}==",
    "root/.docker/config.json": '{"auths": {"example.org": {"auth": "eA=="}}}',
    "root/.pypirc": "[pypi]\npassword = x\n",
    "root/.npmrc": "//registry.example.org/:_authToken=abc\n",
    "root/.cargo/credentials.toml": 'token = "x"\n',
    "root/.netrc": "machine example.org login me password x\n",
    "root/.git-credentials": "https://me:x@example.org\n",
    "root/.pgpass": "localhost:5432:db:me:x\n",
    "root/.kube/config": "users:\n- user:\n    token: x\n",
    "run/secrets/kubernetes.io/serviceaccount/token": "x",
    "root/.config/gcloud/credentials.db": "x",
    "root/.azure/accessTokens.json": "[]",
    "root/.vault-token": "x",
    "root/.config/gh/hosts.yml": "github.com:\n  oauth_token: x\n",
    "root/.gnupg/private-keys-v1.d/AB.key": "x",
    "root/passwords.kdbx": "x",
}
HONEST = {
    "root/.ssh/id_ed25519.pub": "ssh-ed25519 AAAA me",
    "etc/ssl/cert.pem": f"-----BEGIN CERTIFICATE-----\n{BODY}\n",
    "usr/lib/libssl.so": "\0-----BEGIN PRIVATE " + "KEY-----\0-----END PRIVATE KEY-----\0",
    "usr/share/doc/keys.txt": "A file begins with -----BEGIN PRIVATE " + "KEY-----\nand ends with another line.\n",
    "usr/share/doc/aws.txt": "AKIA" + "IOSFODNN7EXAMPLE",
    "root/.docker/config.json": '{"credsStore": "pass", "auths": {}}',
    "root/.npmrc": "registry=https://registry.example.org/\n//x/:_authToken=${NPM_TOKEN}\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\n",
    "usr/lib/python3/token.py": "token = None\npassword = input()\n",
}


def rules_of(path: str, content: str, *, secrets_only: bool = True) -> list[str]:
    data = content.encode()
    return [rule.name for rule in matching(path.encode(), len(data), lambda: data, secrets_only=secrets_only)]


@pytest.mark.parametrize("path", SECRETS)
def test_a_secret_is_found(path: str) -> None:
    assert rules_of(path, SECRETS[path])


def test_every_rule_of_a_secret_finds_something() -> None:
    found = {name for path, content in SECRETS.items() for name in rules_of(path, content)}
    assert found == {rule.name for rule in RULES if rule.is_secret}


@pytest.mark.parametrize("path", HONEST)
def test_an_honest_file_is_left_alone(path: str) -> None:
    assert rules_of(path, HONEST[path]) == []


def test_the_page_lists_every_rule() -> None:
    page = (Path(__file__).parents[3] / "docs/how-to/check-an-image.md").read_text()
    assert [rule.name for rule in RULES if f"| {rule.name} |" not in page] == []


def test_large_files_are_not_read() -> None:
    assert list(matching(b"large", MAX_BYTES + 1, lambda: pytest.fail("was read"))) == []


def test_a_hint_is_in_whatever_a_rule_finds() -> None:
    for rule in RULES:
        if rule.hints and rule.content is not None:
            for content in SECRETS.values():
                if rule.content.search(content.encode()):
                    assert any(hint in content.encode() for hint in rule.hints)


def test_there_is_no_false_alarm_in_the_packages_of_debian() -> None:
    """What packages bring, but for development files and documents, which have keys as examples."""
    done = subprocess.run(
        ["dpkg-query", "-L", "base-files", "libc-bin", "openssl", "ca-certificates", "perl-base", "dpkg", "apt", "git"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in {0, 1} or not done.stdout:
        probes.missing("needs dpkg")
    files = {path for path in map(Path, done.stdout.splitlines()) if path.is_file() and not path.is_symlink()}
    assert len(files) > 500
    found = []
    for path in files:
        rules = matching(os.fsencode(path)[1:], path.stat().st_size, path.read_bytes, secrets_only=True)
        found += [(path, rule.name) for rule in rules]
    assert found == []


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD, Compression.NONE])
def test_deny_fails_the_commit_and_names_the_paths(tmp_path: Path, compression: Compression) -> None:
    tree = tmp_path / "tree"
    for path, content in {**SECRETS, **HONEST}.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(content)
    with ocidiff.Store.open(tmp_path / "store") as store:
        with pytest.raises(ocidiff.ForbiddenContentError) as caught:
            store.commit(tree, "app:1", deny=["secrets"], compression=compression)
        assert "/app/token (token of GitHub)" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert store.images() == []
        # A secret of the base is not added again.
        store.commit(tree, "base:1")
        (tree / "new").write_text("honest")
        store.commit(tree, "app:1", base="base:1", deny=["secrets"], compression=compression)
        (tmp_path / "key").write_text(SECRETS["app/token"])
        with pytest.raises(ocidiff.ForbiddenContentError, match="/added"):
            store.commit(tree, "app:2", base="app:1", additions=[f"{tmp_path}/key:/added"], deny=["secrets"])
        assert {image.name for image in store.images()} == {"base:1", "app:1"}
    with ocidiff.Store.open(tmp_path / "store") as store, pytest.raises(ocidiff.UsageError, match="must be secrets"):
        store.commit(tree, "app:3", deny=["everything"])


def test_a_preview_tells_what_a_commit_stores_and_stores_nothing(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "old").write_text("x")
    with ocidiff.Store.open(tmp_path / "store") as store:
        store.commit(tree, "base:1")
        before = sorted(path.name for path in (tmp_path / "store/blobs/sha256").iterdir())
        (tree / "old").unlink()
        (tree / "new").write_bytes(bytes(1000))
        changes: list[ocidiff.Change] = []
        arguments = {"base": "base:1", "additions": [f"{__file__}:/added"]}
        store.preview(tree, "app:1", changes.append, **arguments)  # type: ignore[arg-type]
        assert [(str(one.kind), one.path) for one in changes] == [("add", "/new"), ("delete", "/old"), ("add", "/added")]
        assert [one.layer_bytes for one in changes] == [1000, 0, os.path.getsize(__file__)]
        assert all(one.reason for one in changes)
        assert before == sorted(path.name for path in (tmp_path / "store/blobs/sha256").iterdir())
        assert [image.name for image in store.images()] == ["base:1"]
