"""Mask the secrets in text that people get to see: logs, errors, manifests and answers.

Errors quote what was sent, and people paste signed URLs and passwords into URIs. The rest of the text stays readable.
"""

import re

MASK = "***"
LONGEST = 10_000

#: URL parameters that grant access to their holder: signatures of AWS, Google and Azure, keys of webhooks.
_PARAMETERS = (
    r"x-(?:amz|goog)-(?:signature|credential|security-token)|signature|sig|awsaccesskeyid|googleaccessid|policy"
    r"|key-pair-id|(?:access|auth|api)?[-_]?(?:token|key)|pass(?:word|wd)?|(?:client[-_]?)?secret"
)
#: The rules. A text without a rule's first word has nothing for it to mask, and that check is much faster. Each rule
#: stops after so many characters, so that a text made to be slow can't take long.
_RULES = tuple(
    (hint, re.compile(pattern, re.IGNORECASE), replacement)
    for hint, pattern, replacement in (
        # scheme://user:password@host. The password may have slashes, as AWS's keys do. HOST:PORT/path@2 has no
        # password, nor has an ARN.
        ("@", r"://(?!arn:)[^\s/@:'\"]{0,200}:(?!\d{0,5}/)[^\s@'\"]{0,400}@", f"://{MASK}@"),
        ("@", r"://[^\s/@'\"]{1,400}@", f"://{MASK}@"),
        # ?name=value, and the same inside another URL
        ("=", rf"([?&;])({_PARAMETERS})=[^\s&;'\"\\<>]+", rf"\1\2={MASK}"),
        ("%3d", rf"(%3F|%26)({_PARAMETERS})(%3D)(?:(?!%26)[^\s&;'\"\\<>])+", rf"\1\2\3{MASK}"),
        ("aws4-hmac-sha256 ", r"AWS4-HMAC-SHA256\s[^\n'\"]*", f"AWS4-HMAC-SHA256 {MASK}"),
        ("bearer", r"\bBearer\s+[\w.~+/=-]{16,}", f"Bearer {MASK}"),
        ("nst_", r"\bnst_([0-9a-f]{1,32})_[\w-]{8,}", rf"nst_\1_{MASK}"),
        ("hf_", r"\bhf_[a-z0-9]{16,}", f"hf_{MASK}"),
        ("whsec_", r"\bwhsec_[\w+/=-]{16,}", f"whsec_{MASK}"),
    )
)


def masked(text: str, longest: int = LONGEST) -> str:
    """Return the text with everything that looks like a secret masked. Masking it again changes nothing.

    What comes after the first `longest` characters is cut off: people read no more, and a long text could be made slow.
    """
    if len(text) > longest:
        text = text[:longest] + "…"
    small = text.lower()
    for hint, pattern, replacement in _RULES:
        if hint in small:
            text = pattern.sub(replacement, text)
    return text


def has_secret(text: str) -> bool:
    """Return whether the text, of LONGEST characters at most, has anything to mask."""
    return masked(text) != text


def shown(value: object) -> str:
    """Return a misplaced value as a message quotes it. A mapping or a list is only named as such."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return masked(repr(value))
