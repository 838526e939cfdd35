#!/usr/bin/env python3
"""A second reader of imgcluster's files, written from crypto/FORMAT.md alone.

    reader.py VECTORS.json       compares every vector with its expectation
    reader.py --decrypt FILE     writes the plaintext of FILE to stdout; the user's key, in
                                 hexadecimal, is read from stdin

It reads a whole file into memory: it is for checking the format, not for use.
Needs the package "cryptography" (Debian: python3-cryptography). Exit status: 0 all is well,
1 not, 77 it cannot run here.
"""

import hmac
import json
import sys

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError as e:
    print(f"no AES-GCM in this Python: {e}", file=sys.stderr)
    sys.exit(77)

TENANT_AT = 184
STREAM_HEADER = 40


class Refused(Exception):
    """Why a value or a file is refused: "format", "auth" or "master"."""


def hkdf(secret, salt, info, size=32):
    """HKDF-SHA256 (RFC 5869)."""
    prk = hmac.digest(salt or bytes(32), secret, "sha256")
    out, block = b"", b""
    while len(out) < size:
        block = hmac.digest(prk, block + info + bytes([len(out) // 32 + 1]), "sha256")
        out += block
    return out[:size]


def gcm_open(key, nonce, sealed, ad):
    if len(sealed) < 16:
        raise Refused("auth")
    try:
        return AESGCM(key).decrypt(nonce, sealed, ad)
    except InvalidTag:
        raise Refused("auth") from None


def number(b):
    return int.from_bytes(b, "big")


def header_of(file):
    """The header's bytes, after its shape is checked."""
    magic = b"IMGCLST\0"
    if file[:8] != magic[: len(file[:8])]:
        raise Refused("format")
    if len(file) < 12:
        raise Refused("auth")
    if file[8] != 1 or file[9] != 1:
        raise Refused("format")
    size = number(file[10:12])
    if not TENANT_AT < size <= TENANT_AT + 128:
        raise Refused("format")
    if len(file) < size:
        raise Refused("auth")
    return file[:size]


def read_file(file, user_key):
    """The plaintext of a file."""
    header = header_of(file)
    segment, length = number(header[12:16]), number(header[52:60])
    wrapped, salt, commitment = header[60:120], header[120:152], header[152:184]
    tenant = header[TENANT_AT:]
    try:
        tenant.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("format") from None
    if not 64 <= segment <= 1 << 20 or length > 1 << 40:
        raise Refused("format")
    segments = -(-(length + 40) // (segment - 16))
    if segments > (1 << 32) - 1:
        raise Refused("format")

    info = b"imgcluster v1 data key wrap"
    data_key = gcm_open(hkdf(user_key, salt, info), wrapped[:12], wrapped[12:], info + header[:60] + tenant)
    expected = hkdf(data_key, salt, b"imgcluster v1 key commitment")
    if not hmac.compare_digest(expected, commitment):
        raise Refused("auth")

    body = file[len(header):]
    if len(body) != 40 + length + 16 * segments or body[0] != STREAM_HEADER:
        raise Refused("auth")
    stream_key, prefix = hkdf(data_key, body[1:33], header), body[33:40]
    plain = []
    for k in range(segments):
        sealed = body[max(k * segment, STREAM_HEADER): (k + 1) * segment]
        nonce = prefix + k.to_bytes(4, "big") + bytes([k == segments - 1])
        plain.append(gcm_open(stream_key, nonce, sealed, b""))
    return b"".join(plain)


def unwrap_user_key(master, tenant, key_id, wrapped):
    if len(wrapped) != 69 or wrapped[0] != 1:
        raise Refused("format")
    if wrapped[1:9] != master_id(master):
        raise Refused("master")
    info = b"imgcluster v1 user key wrap"
    ad = info + wrapped[:9] + key_id.to_bytes(4, "big") + tenant.encode("utf-8")
    return gcm_open(hkdf(master, b"", info), wrapped[9:21], wrapped[21:], ad)


def master_id(master):
    return hkdf(master, b"", b"imgcluster v1 master key id", 8)


def check_of(user_key, image, plain):
    keys = hkdf(user_key, b"", b"imgcluster v1 image check", 64)
    message = image
    for k in range(-(-len(plain) // 16384)):
        block = plain[k * 16384: (k + 1) * 16384]
        message += AESGCM(keys[:32]).encrypt(bytes(4) + k.to_bytes(8, "big"), b"", block)
    return hmac.digest(keys[32:], message + len(plain).to_bytes(8, "big"), "sha256")[:16]


def open_digest(user_key, sealed):
    keys = hkdf(user_key, b"", b"imgcluster v1 image digest", 64)
    iv = sealed[:16]
    digest = Cipher(algorithms.AES(keys[32:]), modes.CTR(iv)).decryptor().update(sealed[16:])
    if not hmac.compare_digest(hmac.digest(keys[:32], digest, "sha256")[:16], iv):
        raise Refused("auth")
    return digest


def outcome(fn, *args):
    """What becomes of a vector: ok with the result, or why it is refused."""
    try:
        return "ok", fn(*args).hex()
    except Refused as e:
        return str(e), ""


def pattern(size):
    return bytes((7 * i + 13 * (i // 256)) & 0xFF for i in range(size))


def compare(vectors):
    """Compares all vectors and returns their number and how many are not as expected."""
    total = wrong = 0

    def expect(name, got, want):
        nonlocal total, wrong
        total += 1
        if got != want:
            wrong += 1
            print(f"{name}: {got[0]} {got[1][:40]}, expected {want[0]} {want[1][:40]}", file=sys.stderr)

    b = bytes.fromhex
    for v in vectors["files"]:
        expect("file " + v["name"], outcome(read_file, b(v["file"]), b(v["user_key"])),
               (v["expect"], v.get("plaintext", "")))
    for v in vectors["user_keys"]:
        if master_id(b(v["master_key"])).hex() != v["master_id"]:
            print(f"user key {v['name']}: another master key ID", file=sys.stderr)
            wrong += 1
        expect("user key " + v["name"],
               outcome(unwrap_user_key, b(v["master_key"]), v["tenant"], v["key_id"], b(v["wrapped"])),
               (v["expect"], v.get("user_key", "")))
    for v in vectors["checks"]:
        expect(f"check of {v['plaintext_bytes']} bytes",
               outcome(check_of, b(v["user_key"]), b(v["image"]), pattern(v["plaintext_bytes"])),
               ("ok", v["check"]))
    for v in vectors["digests"]:
        expect("digest " + v["name"], outcome(open_digest, b(v["user_key"]), b(v["sealed"])),
               (v["expect"], v.get("digest", "")))
    return total, wrong


def main(args):
    if len(args) == 2 and args[0] == "--decrypt":
        with open(args[1], "rb") as f:
            file = f.read()
        sys.stdout.buffer.write(read_file(file, bytes.fromhex(sys.stdin.read().strip())))
        return 0
    if len(args) != 1:
        print(__doc__, file=sys.stderr)
        return 1
    with open(args[0], encoding="utf-8") as f:
        total, wrong = compare(json.load(f))
    print(f"{total} vectors, {wrong} not as expected")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
