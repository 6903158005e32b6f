"""What stock's clients are told of its database: what is wrong, not its statements, host and name, which are logged."""

from __future__ import annotations

from typing import Any

READ_ONLY = "25006"


def tell_less(engines: Any) -> None:
    """From now on, of an engine of SQLAlchemy's, or of every one where it is the class."""
    from sqlalchemy import event, exc

    def tell(context: Any) -> BaseException | None:
        error = context.sqlalchemy_exception
        if not isinstance(error, exc.DBAPIError):
            return None
        error.statement = error.params = None
        if "connection to server" in str(error):
            error.args = ("The database is away. Try again in a moment.",)
        if getattr(context.original_exception, "pgcode", None) != READ_ONLY:
            return None
        context.is_disconnect = True  # a failover: who connects anew finds the primary
        return exc.OperationalError(None, None, context.original_exception, connection_invalidated=True)  # MLflow's 503

    event.listen(engines, "handle_error", tell, retval=True)
