"""What the host decides: where things lie, what the machine offers, which guards stand and how much is allowed.

Every setting is an environment variable with the prefix `INSTANTID_` (`INSTANTID_DEVICE=cpu`) and a flag of
`app.py` (`--device cpu`). Secrets (`INSTANTID_AUTH`) come from the environment only. The user's wishes are in
`request.py`; nothing here changes while the application runs.
"""

import os
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, CliSuppress, SettingsConfigDict

from instantid_demo.request import MAX_IMAGES, MAX_SIDE, RequestError

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: assets and style presets lie here."""


def _home() -> Path:
    """The platform's folder for an application's data."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "instantid-demo"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "instantid-demo"
    return Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share")) / "instantid-demo"


class Settings(BaseSettings):
    """Settings of one running application; read once, immutable."""

    model_config = SettingsConfigDict(
        env_prefix="INSTANTID_", env_ignore_empty=True, frozen=True, extra="ignore", cli_implicit_flags="toggle"
    )

    home: Path = Field(default_factory=_home, description="Downloaded models, identity cards, keys and own styles.")
    outputs: Path = Field(Path("outputs"), description="Where pictures are saved, and the history is kept.")
    assets: Path = Field(ROOT / "assets", description="What ships with the program: Pocket, icons, thumbnails.")

    model: str = Field("auto", description="The model of requests that name none; auto: the best that is ready.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where the model runs.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="Number format of weights.")
    offload: Literal["auto", "none", "model", "sequential"] = Field(
        "auto", description="What waits in main memory instead of the graphics card's."
    )
    backend: Literal["auto", "torch", "openvino"] = Field("auto", description="What computes on a processor.")
    compile: bool = Field(False, description="Compile PyTorch's networks first: minutes once, then faster pictures.")
    offline: bool = Field(False, description="Never use the network, not even when asked to download.")

    hosted: bool = Field(False, description="Strangers use it: history per user and off, limits and rates apply.")
    history: bool | None = Field(None, description="Keep results on disk; unset: yes, but not when hosted.")
    prompt_in_metadata: bool = Field(True, description="The prompt stands in the saved picture's settings text.")
    safety: bool = Field(True, description="Guard: filter for unsafe prompts and pictures.")
    watermark: bool = Field(True, description="Guard: invisible watermark in every saved picture.")
    credentials: bool = Field(True, description="Guard: signed content credentials in every saved picture.")
    consent: bool = Field(True, description="Guard: the page asks for consent before the first upload.")
    own_photos_only: str = Field("", description="A notice shown at the upload, such as: only photos of yourself.")
    signing_key: Path | None = Field(None, description="The operator's own ES256 key (PEM) for the credentials.")
    signing_certificate: Path | None = Field(None, description="Its certificate chain (PEM).")

    max_images: int = Field(MAX_IMAGES, ge=1, le=MAX_IMAGES, description="Pictures of one request.")
    max_side: int = Field(MAX_SIDE, ge=64, le=MAX_SIDE, description="Longest side of a picture in pixels.")
    max_steps: int = Field(100, ge=1, le=100, description="Denoising steps of one request.")
    queue_size: int = Field(16, ge=1, le=1000, description="Requests that may wait.")
    upload_mb: int = Field(20, ge=1, le=500, description="Largest upload in megabytes.")
    upload_minutes: int = Field(60, ge=1, description="Minutes after which an unused upload is wiped.")
    rate_per_minute: int = Field(0, ge=0, description="Requests of one client in a minute; 0: 10 if hosted, else any.")

    auth: CliSuppress[SecretStr | None] = Field(
        None, description="name:password pairs with commas between; from the environment only."
    )
    mcp: bool = Field(False, description="Offer the tools over the Model Context Protocol.")

    @model_validator(mode="after")
    def _key_and_certificate(self) -> "Settings":
        if (self.signing_key is None) != (self.signing_certificate is None):
            raise ValueError("Set INSTANTID_SIGNING_KEY and INSTANTID_SIGNING_CERTIFICATE together.")
        return self

    @classmethod
    def from_flags(cls, arguments: list[str]) -> "Settings":
        """Settings from command-line flags over the environment; prints help and ends where `--help` is given."""
        return cls(_cli_parse_args=arguments, _cli_kebab_case=True)  # type: ignore[call-arg]

    @property
    def keeps_history(self) -> bool:
        """Whether results stay on disk."""
        return not self.hosted if self.history is None else self.history

    @property
    def rate(self) -> int:
        """Requests of one client in a minute; 0: no limit."""
        return self.rate_per_minute or (10 if self.hosted else 0)

    @property
    def models(self) -> Path:
        """Folder of downloaded models."""
        return self.home / "models"

    @property
    def pocket(self) -> Path:
        """Folder of the embedded model."""
        return self.assets / "pocket"

    @property
    def style_folders(self) -> tuple[Path, ...]:
        """Folders of style presets; a later one wins."""
        return (ROOT / "style_presets", self.home / "style_presets")

    def accounts(self) -> list[tuple[str, str]] | None:
        """`auth` as pairs for the server, None where everybody may enter.

        Raises:
            RequestError: a pair has no colon.
        """
        if self.auth is None:
            return None
        pairs = [entry.partition(":") for entry in self.auth.get_secret_value().split(",") if entry.strip()]
        if any(not (name.strip() and colon and password) for name, colon, password in pairs):
            raise RequestError("INSTANTID_AUTH must be name:password, several with commas between them.")
        return [(name.strip(), password) for name, _, password in pairs]
