"""The errors that Headrace raises itself. What one part alone raises stands there, below one of these.

    HeadraceError
    ├── ConfigurationError      a setting is wrong; told on the command line, exit code 2
    ├── SchemaOutOfDate         the database must be upgraded (or MLflow must), exit code 3
    ├── AwsError                `headrace aws`: AWS refused or failed, exit code 4
    ├── BrokenOff               Ctrl-C ended a command, exit code 130
    ├── ApiError                answered to a client in MLflow's JSON error shape
    │   ├── InvalidParameter    400: what MLflow refuses of a request, in its words
    │   ├── BadRequest          400: the few that MLflow refuses by this name
    │   ├── AlreadyExists       400: the name is taken
    │   ├── NotFound            404: what the request works on is not there
    │   ├── InvalidState        400 (stock: 500, which clients repeat): what is there can't be changed that way
    │   ├── Unauthenticated     401: nobody, or nobody that we know
    │   ├── Forbidden           403: somebody, who may not; or this server may not, in its artifact store
    │   ├── TooManyAttempts     429 with Retry-After: logins that failed too often
    │   ├── PayloadTooLarge     413
    │   ├── QuotaExceeded       507: an experiment has more than --quota gives it
    │   ├── NeedsStock          501: stock alone answers it, and --stock is never
    │   ├── NotServed           501: this server has artifacts only, or no workspaces
    │   └── Unavailable         503 with Retry-After; stock's client tries again by itself
    └── Declined                not an error: stock must answer this request
        ├── Malformed           and may have no better answer than a 500
        └── StoreUnusable       nor could stock: the `answer` that it has goes to who asked

Foreign errors (asyncpg's, sqlite3's, httpcore's) are translated to these where they enter: in db/ and stock/.
"""

from __future__ import annotations


class HeadraceError(Exception):
    """The root of the tree."""


class ConfigurationError(HeadraceError):
    """A setting, or a combination of settings, that can't work. The text says which, and what to do next."""


class SchemaOutOfDate(HeadraceError):
    """The database's schema is not what the installed MLflow works on; `newer`: none of its migrations leads there."""

    def __init__(self, text: str, newer: bool = False) -> None:
        super().__init__(text)
        self.newer = newer


class AwsError(HeadraceError):
    """AWS, or a tool on the way to it, refused or failed. The text says what, where, and what to do next.

    `code` is AWS's error code, or the name of the botocore exception; empty for findings of our own.
    """

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        self.code = code


class BrokenOff(HeadraceError):
    """Ctrl-C ended a command. The text says what became of it, and what to do next."""


class ApiError(HeadraceError):
    """An answer of Headrace's own in MLflow's error shape: `{"error_code": ..., "message": ...}`."""

    status = 500
    error_code = "INTERNAL_ERROR"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    id = ""  # under which the log has it already

    def content(self) -> dict[str, str]:
        """The answer's body, as MlflowException.serialize_as_json has it since MLflow 3.10."""
        content = {"error_code": self.error_code, "message": str(self)}
        kind = _ERROR_CLASSES.get(self.error_code)
        if kind is not None:
            content |= {"sqlstate": kind[0], "error_class": kind[1]}
        return content


# mlflow/error_classification.py: an error code -> SQLSTATE, error class
_ERROR_CLASSES = {
    "INVALID_PARAMETER_VALUE": ("KAM00", "INVALID_PARAMETER_VALUE"),
    "BAD_REQUEST": ("KAM00", "INVALID_PARAMETER_VALUE"),
    "RESOURCE_DOES_NOT_EXIST": ("KAM00", "RESOURCE_NOT_FOUND"),
    "NOT_FOUND": ("KAM00", "RESOURCE_NOT_FOUND"),
    "RESOURCE_ALREADY_EXISTS": ("KAM00", "RESOURCE_ALREADY_EXISTS"),
    "PERMISSION_DENIED": ("KAM00", "PERMISSION_DENIED"),
    "INVALID_STATE": ("XXM00", "CLIENT_INTERNAL_ERROR"),
    "INTERNAL_ERROR": ("XXM00", "CLIENT_INTERNAL_ERROR"),
    "TEMPORARILY_UNAVAILABLE": ("XXM00", "CLIENT_INTERNAL_ERROR"),
}


class InvalidParameter(ApiError):
    """MLflow refuses a value, or misses one."""

    status = 400
    error_code = "INVALID_PARAMETER_VALUE"


class BadRequest(ApiError):
    """What MLflow says of the few requests that it refuses by this name."""

    status = 400
    error_code = "BAD_REQUEST"


class AlreadyExists(ApiError):
    """The name is taken."""

    status = 400
    error_code = "RESOURCE_ALREADY_EXISTS"


class NotFound(ApiError):
    """What the request works on is not there."""

    status = 404
    error_code = "RESOURCE_DOES_NOT_EXIST"


class InvalidState(ApiError):
    """What the request works on can't be changed that way (stock answers 500, exceptions.py, and clients repeat it)."""

    status = 400
    error_code = "INVALID_STATE"


class Unauthenticated(ApiError):
    """The request needs credentials, and has none or wrong ones."""

    status = 401
    error_code = "UNAUTHENTICATED"
    # Basic works, too, but to offer it would make browsers ask with a window of their own.
    headers = ((b"www-authenticate", b'Bearer realm="MLflow"'),)


class Forbidden(ApiError):
    """Whoever sent the request may not do that, or the artifact store does not let this server do it."""

    status = 403
    error_code = "PERMISSION_DENIED"


class TooManyAttempts(ApiError):
    """Logins failed too often; none is looked at before `seconds` have passed."""

    status = 429
    error_code = "REQUEST_LIMIT_EXCEEDED"

    def __init__(self, seconds: int) -> None:
        super().__init__(f"Too many logins have failed. Try again in {seconds} s.")
        self.headers = ((b"retry-after", b"%d" % seconds),)


class PayloadTooLarge(ApiError):
    """The body is larger than a native handler takes."""

    status = 413
    error_code = "INVALID_PARAMETER_VALUE"


class QuotaExceeded(ApiError):
    """The experiment has more than --quota gives it. Clients don't send it again by themselves."""

    status = 507
    error_code = "QUOTA_EXCEEDED"


class NeedsStock(ApiError):
    """Only stock MLflow can answer this, and the server is started without it."""

    status = 501
    error_code = "NOT_IMPLEMENTED"


class NotServed(ApiError):
    """The server is started for something else."""

    status = 501
    error_code = "NOT_IMPLEMENTED"


class Unavailable(ApiError):
    """The database, the write queue or stock can't take the request now; nothing of it was done."""

    status = 503
    error_code = "TEMPORARILY_UNAVAILABLE"
    headers = ((b"retry-after", b"1"),)


class Declined(HeadraceError):
    """A native handler leaves the request to stock. Raised before the request has had any effect."""


class StoreUnusable(Declined):
    """Artifacts can't be kept where they shall be: no credentials, nobody at the address. Stock could do nothing else.

    `answer` is for who sent a request; the text, which names profiles and files, for the server's log.
    """

    def __init__(self, reason: str, answer: ApiError) -> None:
        super().__init__(reason)
        self.answer = answer


class Malformed(Declined):
    """Declined because of how the request is made; the text, for the client, says what is wrong with it.

    Stock may understand it all the same, or refuse it in its own words. Where it only fails, the client gets the text.
    """
