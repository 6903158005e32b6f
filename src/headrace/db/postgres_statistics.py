"""PostgreSQL's statistics of MLflow's tables, where there are none.

Autovacuum makes them a minute after many rows have come; a dump, a copy and an upgrade to PostgreSQL 17 or older bring
none. Until then a search may look at each tag of 2,000 runs for each of 2,000 runs (8 s, and 8 ms with them).
"""

from __future__ import annotations

import logging

from headrace.db import schema
from headrace.db.connections import Connection

logger = logging.getLogger(__name__)

SMALL_BYTES = 65_536  # of a table, of which any plan is quick

_WITHOUT_ANY = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = ANY ($1::name[]) AND c.relkind = 'r' AND pg_table_is_visible(c.oid) AND pg_relation_size(c.oid) > $2
  AND NOT EXISTS (SELECT 1 FROM pg_stats s WHERE s.schemaname = n.nspname AND s.tablename = c.relname)
"""


async def complete(connection: Connection) -> None:
    """Have statistics of each table with more than SMALL_BYTES. Who may not make them is passed over by PostgreSQL,
    with a warning of its own. Raises OSError, asyncpg's errors."""
    for row in await connection.fetch(_WITHOUT_ANY, list(schema.TABLES), SMALL_BYTES):
        logger.info("PostgreSQL has no statistics of the table %s yet: making them", row["relname"])
        await connection.execute(f"ANALYZE {row['relname']}")
