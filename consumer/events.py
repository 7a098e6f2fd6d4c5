"""Bytes of the input topic to an event, a deletion, or a refusal with a stable code. Pure; never raises.

After the poll, before photos. A refusal becomes a dead letter; its detail says where and what, never the content.
"""

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    Strict,
    ValidationError,
)

MAX_ID: Final = 128
MAX_TITLE: Final = 1000
MAX_URL: Final = 2048
MAX_VERSION: Final = 2**53 - 1
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]", re.ASCII)
_UNPRINTABLE = "holds a control character"


class Code(StrEnum):
    """Why an event became a dead letter; stable, part of the contract of the dead-letter topic."""

    NO_KEY = "event.no_key"  # neither key nor value: nothing says which product
    BAD_KEY = "event.bad_key"  # a deletion whose key is no product id
    KEY_MISMATCH = "event.key_mismatch"  # the key is not the product_id of the value
    TOO_LARGE = "event.too_large"  # more bytes than limits.event_bytes
    NOT_UTF8 = "event.not_utf8"
    NOT_JSON = "event.not_json"  # also NaN and Infinity, which JSON does not have
    TOO_DEEP = "event.too_deep"  # nested beyond what any listing needs
    SCHEMA = "event.schema"  # a field is missing, too long or of the wrong type
    EMPTY = "event.empty"  # no title and no photo
    VERSION_MISSING = "event.version_missing"  # order_by is version, and the event has none that can be read
    RETRY_HEADERS = "retry.headers"  # a record of a retry topic does not say what it is a retry of
    MODEL_FAILED = "model.failed"  # the model raised on this listing alone


def _printable(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError(_UNPRINTABLE)
    return text


def _dated(text: object) -> object:
    """Pydantic also reads `"1"` as a time, seconds since 1970."""
    if text is not None and not (isinstance(text, str) and _DATE.match(text)):
        raise ValueError("begins with no date of RFC 3339")
    return text


Moment = Annotated[AwareDatetime, Strict(False), BeforeValidator(_dated)]  # strict would take no text from a validator
ProductId = Annotated[str, Field(min_length=1, max_length=MAX_ID), AfterValidator(_printable)]


class Event(BaseModel):
    """A listing as registered or updated. Unknown fields are ignored; types are strict (`"1"` is no number)."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore", strict=True, title="Event")

    product_id: ProductId = Field(description="the key of the record, when it has one")
    title: str = Field("", max_length=MAX_TITLE, description="may be empty if there is a photo")
    image_url: str | None = Field(None, max_length=MAX_URL, description="http or https")
    version: int | None = Field(None, ge=0, le=MAX_VERSION)
    registered_at: Moment | None = Field(None, description="RFC 3339")
    brand: str | None = Field(None, max_length=MAX_TITLE)
    maker: str | None = Field(None, max_length=MAX_TITLE)
    seller_path: list[str] | None = Field(None, max_length=16, description="the category the seller chose")
    attributes: dict[str, JsonValue] | None = None

    @property
    def model(self) -> str:
        """The product's model name or number, from `attributes.model`; "" where there is none."""
        named = (self.attributes or {}).get("model")
        return named[:MAX_TITLE] if isinstance(named, str) else ""


@dataclass(frozen=True, slots=True)
class Deletion:
    """A null value: the product is gone."""

    product_id: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the record is none of ours; `detail` is one short sentence."""

    code: Code
    detail: str


def parse(key: bytes | None, value: bytes | None, *, max_bytes: int) -> Event | Deletion | Refusal:
    """Read one record.

    Args:
        max_bytes: a larger value is refused before it is parsed.
    """
    if value is None:
        return _deletion(key)
    if len(value) > max_bytes:
        return Refusal(Code.TOO_LARGE, f"{len(value)} bytes, the limit is {max_bytes}")
    if (b"NaN" in value or b"Infinity" in value) and _has_constant(value):
        return Refusal(Code.NOT_JSON, "NaN or Infinity stands in it")
    try:
        event = Event.model_validate_json(value)
    except ValidationError as error:
        return _refusal(value, error)
    if key is not None and key != event.product_id.encode():
        return Refusal(Code.KEY_MISMATCH, "the key differs from product_id")
    if not event.title.strip() and not event.image_url:
        return Refusal(Code.EMPTY, "no title and no image_url")
    return event


def _deletion(key: bytes | None) -> Deletion | Refusal:
    if not key:
        return Refusal(Code.NO_KEY, "neither a key nor a value")
    try:
        product_id = key.decode()
    except UnicodeDecodeError as error:
        return Refusal(Code.BAD_KEY, f"byte {error.start} of the key: {error.reason}")
    if len(product_id) > MAX_ID or _CONTROL.search(product_id):
        return Refusal(Code.BAD_KEY, f"the key is longer than {MAX_ID} characters or {_UNPRINTABLE}")
    return Deletion(product_id)


def _has_constant(value: bytes) -> bool:
    """Whether NaN or Infinity stands outside a string."""

    def found(constant: str) -> Any:
        raise FloatingPointError(constant)

    try:
        json.loads(value, parse_constant=found)
    except FloatingPointError:
        return True
    except (ValueError, RecursionError):
        pass  # not JSON in another way: the parser below says which
    return False


def _refusal(value: bytes, error: ValidationError) -> Refusal:
    try:
        value.decode()
    except UnicodeDecodeError as undecodable:
        return Refusal(Code.NOT_UTF8, f"byte {undecodable.start}: {undecodable.reason}")
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(step) for step in problem["loc"])[:200]
    detail = f"{where}: {problem['msg']}" if where else problem["msg"]
    if problem["type"] == "json_invalid":
        return Refusal(Code.TOO_DEEP if "recursion limit" in problem["msg"] else Code.NOT_JSON, detail)
    return Refusal(Code.SCHEMA, detail)
