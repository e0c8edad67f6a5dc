"""Rules: what an image should not hold. The list that docs/how-to/check-an-image.md tells of.

A secret is told by its content, or by a name that nothing else has. A name alone that has honest uses makes a file
suspicious at most, since a rule that cries wolf is switched off.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from ocidiff.values import dataclass

MAX_BYTES: Final = 1 << 20
"""Files that are larger are judged by their names: no key or token is so large."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing to look for.

    Attributes:
        name: What is found.
        is_secret: True if `--deny secrets` refuses it; otherwise a report tells of it.
        path: What the path must match, somewhere; None for any path.
        content: What the content must match, somewhere; None for any content.
        hints: Texts one of which any matching content has, so that most content is skipped quickly; none for no such
            text.
    """

    name: str
    is_secret: bool
    path: re.Pattern[bytes] | None = None
    content: re.Pattern[bytes] | None = None
    hints: tuple[bytes, ...] = ()


def _secret(name: str, path: bytes | None = None, content: bytes | None = None, *hints: bytes) -> Rule:
    return _rule(name, path, content, *hints, is_secret=True)


def _rule(name: str, path: bytes | None, content: bytes | None = None, *hints: bytes, is_secret: bool = False) -> Rule:
    path_pattern, content_pattern = (None if text is None else re.compile(text) for text in (path, content))
    return Rule(name, is_secret, path_pattern, content_pattern, hints)


_KEY_BODY: Final = rb"(?:[A-Za-z-]+: [^\r\n]*\r?\n)*\s*(?:[A-Za-z0-9+/]{40,76}={0,2}\s+){2}"
_WORD: Final = rb"(?<![A-Za-z0-9_-])"

RULES: Final = (
    _secret("private key", None, rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----\r?\n" + _KEY_BODY, b"PRIVATE KEY"),
    _secret(
        "service account key of Google",
        None,
        rb'"private_key": ?"-----BEGIN (?:RSA )?PRIVATE KEY-----\\\\n[A-Za-z0-9+/]{40}',
        b'"private_key"',
    ),
    _secret("credentials of AWS", rb"(?:^|/)\.aws/credentials$", rb"(?i)aws_secret_access_key\s*=\s*\S"),
    _secret(
        "access key of AWS",
        None,
        _WORD + rb"A(?:KIA|SIA)(?![A-Z0-9]{9}EXAMPLE)[A-Z2-7]{16}(?![A-Za-z0-9])",
        b"AKIA",
        b"ASIA",
    ),
    _secret(
        "token of GitHub",
        None,
        _WORD + rb"(?:gh[opsur]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59})\b",
        b"ghp_",
        b"gho_",
        b"ghs_",
        b"ghu_",
        b"ghr_",
        b"github_pat_",
    ),
    _secret("token of GitLab", None, _WORD + rb"glpat-[A-Za-z0-9_-]{20}(?![A-Za-z0-9_-])", b"glpat-"),
    _secret("token of Slack", None, _WORD + rb"xox[abeoprs]-[0-9]{6,}-[0-9A-Za-z-]{16,}", b"xox"),
    _secret("API key of Google", None, _WORD + rb"AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])", b"AIza"),
    _secret("live key of Stripe", None, _WORD + rb"[rs]k_live_[A-Za-z0-9]{24,}", b"k_live_"),
    _secret("token of npm", None, _WORD + rb"npm_[A-Za-z0-9]{36}\b", b"npm_"),
    _secret("token of PyPI", None, _WORD + rb"pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,}", b"pypi-AgEI"),
    _secret("token of Hugging Face", None, _WORD + rb"hf_[A-Za-z]{34}\b", b"hf_"),
    _secret("account key of Azure", None, rb"AccountKey=[A-Za-z0-9+/]{86}==", b"AccountKey="),
    _secret(
        "login of a registry", rb"(?:^|/)(?:\.docker/config|\.dockercfg|containers/auth)(?:\.json)?$", rb'"auth"\s*:\s*"[^"]'
    ),
    _secret("password of a package index", rb"(?:^|/)\.pypirc$", rb"(?m)^\s*password\s*[:=]\s*\S"),
    _secret(
        "token of a package index",
        rb"(?:^|/)\.npmrc$|(?:^|/)\.yarnrc(?:\.yml)?$",
        rb"(?i)_?authToken[\"']?\s*[=:]\s*[\"']?[^\s$\"']",
    ),
    _secret("token of Cargo", rb"(?:^|/)\.cargo/credentials(?:\.toml)?$", rb"(?m)^\s*token\s*="),
    _secret("password of netrc", rb"(?:^|/)\.netrc$", rb"\bpassword\s+\S"),
    _secret("password of Git", rb"(?:^|/)\.git-credentials$", rb"://[^\s:/@]+:[^\s@]+@"),
    _secret("password of PostgreSQL", rb"(?:^|/)\.pgpass$", rb"(?m)^[^#\s][^:\n]*(?::[^:\n]*){3}:[^\n]"),
    _secret(
        "login of Kubernetes",
        rb"(?:^|/)\.kube/config$|(?:^|/)kubeconfig$",
        rb"(?m)^\s*(?:token|client-key-data|password):\s*\S",
    ),
    _secret("token of a Kubernetes pod", rb"(?:^|/)run/secrets/kubernetes\.io/serviceaccount/token$"),
    _secret(
        "login of Google Cloud",
        rb"(?:^|/)gcloud/(?:credentials\.db|access_tokens\.db|application_default_credentials\.json)$",
    ),
    _secret("login of Azure", rb"(?:^|/)\.azure/(?:accessTokens\.json|msal_token_cache\.(?:json|bin))$"),
    _secret("token of Vault", rb"(?:^|/)\.vault-token$"),
    _secret("login of GitHub's client", rb"(?:^|/)gh/hosts\.yml$", rb"oauth_token:\s*\S"),
    _secret("secret key ring", rb"(?:^|/)\.gnupg/(?:private-keys-v1\.d/[^/]+\.key|secring\.gpg)$"),
    _secret("password database", rb"\.kdbx?$"),
    _rule("key store", rb"\.(?:p12|pfx|jks|keystore)$"),
    _rule(
        "settings with passwords",
        rb"(?:^|/)\.env(?:\.[a-z]+)?$",
        rb"(?im)^\s*(?:export\s+)?\w*(?:secret|token|passw|api_?key)\w*=\s*\S",
    ),
    _rule("state of Terraform", rb"\.tfstate(?:\.backup)?$"),
    _rule("passwords of a web server", rb"(?:^|/)\.htpasswd$"),
    _rule("keys of Kerberos", rb"\.keytab$"),
    _rule("history of a shell or a client", rb"(?:^|/)\.(?:bash|zsh|sh|python|mysql|psql|node_repl|sqlite)_history$"),
    _rule("history of Git", rb"(?:^|/)\.git/(?:HEAD|config)$"),
    _rule(
        "cache of a package manager",
        rb"^(?:var/cache/(?:apt/archives/[^/]+\.deb|apk/[^/]+|dnf/|yum/)|var/lib/apt/lists/[^/]+_)",
    ),
    _rule("cache of a user", rb"^(?:root|home/[^/]+)/\.(?:cache|npm|cargo/registry)/."),
    _rule("temporary file", rb"^(?:var/)?tmp/."),
    _rule("core dump", rb"(?:^|/)core(?:\.[0-9]+)?$", rb"^\x7fELF"),
    _rule("swap file of an editor", rb"(?:^|/)\.[^/]+\.sw[a-p]$"),
)


def matching(path: bytes, size_bytes: int, read: Callable[[], bytes], *, secrets_only: bool = False) -> Iterator[Rule]:
    """Yield the rules that a regular file breaks.

    Args:
        path: Its path, relative to the root.
        size_bytes: Its length.
        read: Returns its content. Called once at most, and for a file of at most `MAX_BYTES` only.
        secrets_only: Look for secrets only.
    """
    content: bytes | None = None
    for rule in RULES:
        if (secrets_only and not rule.is_secret) or (rule.path is not None and not rule.path.search(path)):
            continue
        if rule.content is not None:
            if not 0 < size_bytes <= MAX_BYTES:
                continue
            content = read() if content is None else content
            if rule.hints and not any(hint in content for hint in rule.hints):
                continue
            if not rule.content.search(content):
                continue
        yield rule
