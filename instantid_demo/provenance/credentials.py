"""Content credentials (C2PA): a signed statement in every saved picture that a machine made it.

The key and its certificate are made at first use, for this installation alone, readable by its owner only; an
operator may bring others. Verifiers elsewhere call such a signer valid but not trusted, which is honest.
"""

import datetime
import io
import json
import os
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from instantid_demo import __version__
from instantid_demo.request import Consent, RequestError

SOFTWARE = "InstantID demo"
LIKENESS = "Contains the likeness of a real person from a user-supplied photo."
TRAINED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_FOLDER, _CERTIFICATES, _KEY = "signing", "certificates.pem", "key.pem"
_YEARS = 10
_MAKING = threading.Lock()


@dataclass(frozen=True)
class Claims:
    """What a picture's manifest says."""

    models: tuple[str, ...]
    prompt: str | None = None
    """Only where the user asked for it."""
    consent: Consent | None = None


class Signer:
    """Signs pictures with one key."""

    def __init__(self, certificates: bytes, key: bytes) -> None:
        """PEM: the certificate chain, leaf first, and an ES256 private key."""
        self._certificates, self._key = certificates, key

    @classmethod
    def of(cls, home: Path, certificate: Path | None = None, key: Path | None = None) -> "Signer":
        """The operator's signer, or this installation's own, made where it does not exist yet.

        Raises:
            RequestError: a file cannot be read or written.
        """
        return _signer(home, certificate, key)

    def sign(self, data: bytes, mime: str, claims: Claims) -> bytes:
        """The picture's bytes with a signed manifest in them; `mime` is image/png, image/jpeg or image/webp.

        Raises:
            RequestError: the key and the certificate do not fit together.
        """
        import c2pa

        try:
            info = c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, self._certificates, self._key, None)
            signed = io.BytesIO()
            with (
                c2pa.Context(c2pa.Settings.from_json(json.dumps(_SETTINGS))) as context,
                c2pa.Builder(_manifest(claims), context) as builder,
                c2pa.Signer.from_info(info) as signer,
            ):
                builder.sign(signer, mime, io.BytesIO(data), signed)
            return signed.getvalue()
        except c2pa.C2paError as error:
            raise RequestError(
                "The picture could not be signed: check the signing key and certificate, or remove the settings."
            ) from error


_SETTINGS: dict[str, Any] = {"builder": {"thumbnail": {"enabled": False}}}


def _manifest(claims: Claims) -> str:
    details: dict[str, Any] = {
        "@context": "https://schema.org",
        "@type": "CreativeWork",
        "description": LIKENESS,
        "creditText": ", ".join(claims.models),
    }
    if claims.prompt:
        details["text"] = claims.prompt
    if claims.consent:
        details["usageInfo"] = f"{claims.consent.statement} ({claims.consent.time.isoformat(timespec='seconds')})"
    action = {
        "action": "c2pa.created",
        "digitalSourceType": TRAINED,
        "softwareAgent": {"name": SOFTWARE, "version": __version__},
        "parameters": {"models": list(claims.models)},
    }
    return json.dumps(
        {
            "claim_generator_info": [{"name": SOFTWARE, "version": __version__}],
            "title": "Picture made by a machine",
            "assertions": [
                {"label": "c2pa.actions", "data": {"actions": [action]}},
                {"label": "stds.schema-org.CreativeWork", "data": details, "kind": "Json"},
            ],
        }
    )


def certificates(file: Path) -> str:
    """The certificates of a PEM file, in PEM; whatever else stands in it is left out.

    Raises:
        RequestError: it cannot be read, or holds none.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        found = x509.load_pem_x509_certificates(file.read_bytes())
    except OSError as error:
        raise RequestError(f"{file.name} cannot be read: give a PEM file of certificates.") from error
    except ValueError as error:
        raise RequestError(f"{file.name} holds no certificates: give a PEM file of certificates.") from error
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in found)


def own_certificates(home: Path) -> str:
    """The certificates of the key that this installation made for itself, in PEM; empty where there is none."""
    try:
        return certificates(home / _FOLDER / _CERTIFICATES)
    except RequestError:
        return ""


@lru_cache(maxsize=4)
def _signer(home: Path, certificate: Path | None, key: Path | None) -> Signer:
    try:
        if certificate and key:
            return Signer(certificate.read_bytes(), key.read_bytes())
        folder = home / _FOLDER
        with _MAKING:
            if not (folder / _CERTIFICATES).exists():
                _make(folder)
        return Signer((folder / _CERTIFICATES).read_bytes(), (folder / _KEY).read_bytes())
    except OSError as error:
        name = Path(error.filename or "key").name
        raise RequestError(
            f"The signing key cannot be read or made ({name}: {error.strerror}): check the settings."
        ) from error


def _make(folder: Path) -> None:
    """An ES256 root and a leaf for signing, valid for ten years; the root's key is thrown away."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(common: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, SOFTWARE),
                x509.NameAttribute(NameOID.COMMON_NAME, common),
            ]
        )

    now = datetime.datetime.now(datetime.UTC)

    def begun(subject: str, public: Any) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name(f"{SOFTWARE} root of this installation"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
        )

    def usage(root: bool) -> x509.KeyUsage:
        return x509.KeyUsage(
            digital_signature=not root,
            key_cert_sign=root,
            crl_sign=root,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )

    root_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_id = x509.SubjectKeyIdentifier.from_public_key(root_key.public_key())
    root = (
        begun(f"{SOFTWARE} root of this installation", root_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(root=True), critical=True)
        .add_extension(root_id, critical=False)
        .sign(root_key, hashes.SHA256())
    )
    leaf = (
        begun(f"{SOFTWARE} signer of this installation", leaf_key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(root=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(root_id), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(leaf_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key = leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(folder / _KEY, key)
    # Last, because its presence means that both are there.
    _write(folder / _CERTIFICATES, leaf.public_bytes(pem) + root.public_bytes(pem))


def _write(file: Path, content: bytes) -> None:
    """Readable by the owner only, from its first moment."""
    unfinished = file.with_suffix(".partial")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
    os.replace(unfinished, file)
