"""Objects on S3 through the `minio` client: `S3Objects`, an `ObjectStore` in one bucket, tried against MinIO.

The client's public interface has no conditional writes (7.2). They go to an address that it signs itself
(`get_presigned_url`), as one PUT with `If-None-Match: *` or `If-Match: TAG`: public interfaces only, and the condition
is judged by the server. MinIO may refuse and hang up before it has read the body, and the answer is lost; so a PUT
without answer is repeated, and a refusal after that counts as success if the key holds just these bytes. A pointer that
somebody moved on in between is reported as a conflict although it held them for a moment.

An object whose digest the caller knows is streamed to its key in parts, checked before the last part completes it; one
whose digest is unknown goes through a temporary file, since its key is its digest. Parts of broken uploads are aborted;
those of killed clients are invisible, and MinIO removes them after a day (elsewhere: a lifecycle rule of the bucket).
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from tutelage.errors import Code, MissingExtraError, ObjectError, StorageError
from tutelage.files import storage_error
from tutelage.objects import (
    CHUNK_BYTES,
    EXPIRING_PREFIX,
    MAX_NAMED_BYTES,
    PAGE_KEYS,
    Named,
    Page,
    Piece,
    Stored,
    check_key,
    check_named,
    check_prefix,
    check_range,
    conflict,
    digest_in,
    expired,
    hashed,
    ignore,
    missing,
    sized,
    stored_key,
    utc_now,
)

try:
    import urllib3
    from minio import Minio
    from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
except ModuleNotFoundError as error:
    raise MissingExtraError("stores", "an object store on S3") from error

ATTEMPT_WITHIN = timedelta(seconds=10)
"""One request's connection, and each pause between two pieces of its answer."""

_RETRIES = 2  # more attempts after the first; with the limit above a call to a dead server ends within 31 seconds
_PART_BYTES = 16 << 20  # memory of one upload; ten thousand parts, S3's limit, make 160 GB
_ONE_REQUEST_BYTES = 1 << 30  # S3 takes 5 GiB; what breaks after so much should not have to begin anew
_SPOOL_BYTES = 8 << 20  # objects of unknown digest stay in memory up to here
_SIGNED_FOR = timedelta(minutes=5)
_GONE = frozenset({"NoSuchKey", "NoSuchUpload", "NotFound"})
_LOST = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
_FULL = frozenset({"XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded"})
_REFUSED = frozenset(
    {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "NoSuchBucket", "InvalidBucketName"}
)
_BAD_KEY = frozenset({"XMinioParentIsObject", "XMinioObjectExistsAsDirectory", "XMinioInvalidObjectName"})


class S3Objects:
    """An `ObjectStore` in the `bucket` at `endpoint` (host:port); `clock` tells what has expired."""

    def __init__(
        self,
        endpoint: str,
        bucket: str,
        *,
        access_key: str,
        secret_key: str,
        secure: bool = True,
        ca_file: Path | None = None,
        region: str = "us-east-1",
        attempt_within: timedelta = ATTEMPT_WITHIN,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Connects with the first call; with `secure`, trusts the authorities in `ca_file`, else those of OpenSSL."""
        seconds = attempt_within.total_seconds()
        retries = urllib3.Retry(
            _RETRIES,
            backoff_factor=0.2,
            backoff_jitter=0.2,
            status_forcelist=(500, 502, 503, 504),
            raise_on_status=False,  # left to the client, which knows S3's words for it
        )
        trusted = str(ca_file) if ca_file else None
        self._http = urllib3.PoolManager(
            timeout=urllib3.Timeout(seconds), retries=retries, maxsize=16, ca_certs=trusted
        )
        # With a region given the client asks the server for none, and signs without a request.
        self._client = Minio(endpoint, access_key, secret_key, secure=secure, region=region, http_client=self._http)
        self._bucket, self._clock = bucket, clock

    def ensure_bucket(self) -> None:
        """Make the bucket unless it exists."""
        with _translated(self._bucket):
            try:
                self._client.make_bucket(self._bucket)
            except S3Error as error:
                if error.code not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                    raise

    def put(
        self,
        chunks: Iterable[Piece],
        *,
        digest: str | None = None,
        size: int | None = None,
        lifetime: timedelta | None = None,
    ) -> Stored:
        """See `ObjectStore.put`."""
        results: list[tuple[str, int]] = []
        checked = hashed(sized(chunks, size), digest, lambda *result: results.append(result))
        if digest is not None:
            key = stored_key(digest, lifetime, self._clock())
            if size and size <= _ONE_REQUEST_BYTES:
                self._send(key, checked, size)
            else:
                self._upload(key, cast(BinaryIO, _Reader(checked)), -1)
            return Stored(key, *results[0])
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spool:
            _fill(spool, checked)
            found, size = results[0]
            key = stored_key(found, lifetime, self._clock())
            self._upload(key, cast(BinaryIO, spool), size)
        return Stored(key, found, size)

    def size(self, key: str) -> int:
        """See `ObjectStore.size`."""
        digest_in(key, self._clock())
        with _translated(key):
            return int(self._client.stat_object(self._bucket, key).size or 0)

    def read(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See `ObjectStore.read`."""
        digest = digest_in(key, self._clock())
        size = self.size(key)
        count = check_range(key, offset, length, size)
        chunks = self._chunks(key, offset, count) if count else iter(())
        return hashed(chunks, digest, ignore) if count == size else chunks

    def create(self, key: str, data: bytes, *, needs: Sequence[str] = ()) -> str:
        """See `ObjectStore.create`."""
        check_named(key, data)
        for needed in needs:
            self.size(needed)
        return self._put_if(key, data, {"If-None-Match": "*"})

    def get(self, key: str) -> Named:
        """See `ObjectStore.get`."""
        with _translated(check_named(key)):
            answer = self._client.get_object(self._bucket, key)
            try:
                return Named(answer.read(MAX_NAMED_BYTES), _tag(answer))
            finally:
                answer.close()
                answer.release_conn()

    def replace(self, key: str, data: bytes, *, tag: str) -> str:
        """See `ObjectStore.replace`."""
        try:
            return self._put_if(check_named(key, data), data, {"If-Match": f'"{tag}"'})
        except ObjectError as error:
            if error.code is Code.OBJECT_MISSING:
                raise conflict(key) from error
            raise

    def list(self, prefix: str = "", *, after: str = "", limit: int = PAGE_KEYS) -> Page:
        """See `ObjectStore.list`."""
        check_prefix(prefix)
        with _translated(prefix):
            found = self._client.list_objects(self._bucket, prefix, recursive=True, start_after=after or None)
            keys = [str(entry.object_name) for entry in islice(found, limit + 1)]
        return Page(tuple(keys[:limit]), keys[limit - 1] if len(keys) > limit else None)

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        with _translated(check_key(key)):
            self._client.remove_object(self._bucket, key)

    def sweep(self) -> int:
        """See `ObjectStore.sweep`."""
        count = 0
        while gone := list(expired(self.list(EXPIRING_PREFIX).keys, self._clock())):
            for key in gone:
                self.delete(key)
            count += len(gone)
        return count

    def _upload(self, key: str, data: BinaryIO, size: int) -> None:
        """One part after the other: a failed upload of the client's own threads would leave them waiting for ever."""
        with _translated(key):
            self._client.put_object(self._bucket, key, data, size, part_size=_PART_BYTES, num_parallel_uploads=1)

    def _send(self, key: str, chunks: Iterator[Piece], size: int) -> None:
        """One request whose body is not signed: neither side hashes it for the signature, `chunks` are checked anyway.

        The last chunk leaves only when all of them have turned out right; without it the server keeps nothing.
        """
        with _translated(key):
            address = self._client.get_presigned_url("PUT", self._bucket, key, expires=_SIGNED_FOR)
            headers = {"Content-Length": str(size)}
            body = cast(Iterator[bytes], _delayed(chunks))  # the client sends a view as it does bytes
            answer = self._http.request("PUT", address, body=body, headers=headers, retries=False)
            _refuse_failure(answer)

    def _chunks(self, key: str, offset: int, count: int) -> Iterator[bytes]:
        with _translated(key):
            answer = self._client.get_object(self._bucket, key, offset=offset, length=count)
            try:
                while chunk := answer.read(CHUNK_BYTES):
                    yield chunk
            finally:
                answer.close()
                answer.release_conn()

    def _put_if(self, key: str, data: bytes, condition: dict[str, str]) -> str:
        """Write `data` if the server finds the `condition` true; the new tag."""
        for attempt in range(_RETRIES + 1):
            try:
                return self._put_once(key, data, condition)
            except ObjectError as error:
                if attempt > 0 and error.code is Code.OBJECT_CONFLICT and (found := self.get(key)).data == data:
                    return found.tag
                if error.code is not Code.OBJECTS_UNAVAILABLE or attempt == _RETRIES:
                    raise
            time.sleep(random.uniform(0.1, 0.3) * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _put_once(self, key: str, data: bytes, condition: dict[str, str]) -> str:
        with _translated(key):
            address = self._client.get_presigned_url("PUT", self._bucket, key, expires=_SIGNED_FOR)
            answer = self._http.request("PUT", address, body=data, headers=condition, retries=False)
            _refuse_failure(answer)
            return _tag(answer)


def _refuse_failure(answer: Any) -> None:
    if answer.status == 200:
        return
    if answer.data.lstrip().startswith(b"<"):
        raise S3Error.fromxml(answer)
    raise ServerError(f"HTTP status {answer.status}", answer.status)


def _delayed(chunks: Iterator[Piece]) -> Iterator[Piece]:
    """`chunks`, each only after the next one, or the end, was seen."""
    before = next(chunks, None)
    for chunk in chunks:
        yield cast(Piece, before)
        before = chunk
    if before is not None:
        yield before


class _Reader:
    """Chunks as a stream whose `read` gives all that is asked for: the client joins smaller pieces slowly."""

    def __init__(self, chunks: Iterable[Piece]) -> None:
        self._chunks, self._rest = iter(chunks), b""

    def read(self, size: int) -> bytes:
        pieces: list[Piece] = [self._rest]
        found = len(self._rest)
        while found < size and (chunk := next(self._chunks, None)) is not None:
            pieces.append(chunk)
            found += len(chunk)
        data = b"".join(pieces)
        self._rest = data[size:]
        return data[:size]


def _fill(spool: Any, chunks: Iterable[Piece]) -> None:
    try:
        for chunk in chunks:
            spool.write(chunk)
        spool.seek(0)
    except OSError as error:
        raise storage_error(error, Path(tempfile.gettempdir()), "written") from error


def _tag(answer: Any) -> str:
    return str(answer.headers["etag"]).strip('"')


@contextmanager
def _translated(key: str) -> Iterator[None]:
    """The driver's exceptions end here, those of reading an answer too."""
    try:
        yield
    except S3Error as error:
        raise _of_s3(error, key) from error
    except (ServerError, InvalidResponseError, MinioException, urllib3.exceptions.HTTPError) as error:
        raise ObjectError(
            Code.OBJECTS_UNAVAILABLE, f"{key!r}: no answer from the store ({error}): try again"
        ) from error


def _of_s3(error: S3Error, key: str) -> ObjectError | StorageError:
    if error.code in _GONE:
        return missing(key)
    if error.code in _LOST:
        return conflict(key)
    if error.code in _FULL:
        return StorageError(Code.STORAGE_FULL, f"{key!r}: the object store is full: free some space")
    if error.code in _REFUSED:
        return ObjectError(Code.OBJECTS_REFUSED, f"{key!r}: {error.code}: check credentials, rights and bucket")
    if error.code in _BAD_KEY:
        return ObjectError(Code.OBJECT_KEY, f"{key!r} lies in another key or holds one: choose another")
    return ObjectError(Code.OBJECTS_UNAVAILABLE, f"{key!r}: the store answered {error.code}: try again")
