-- The roles whose the database is, and the tables in it that are no extension's; and whether we may do as they.
SELECT DISTINCT rolname, pg_has_role(CURRENT_USER, oid, 'USAGE')
FROM pg_roles
WHERE rolname <> CURRENT_USER AND NOT rolsuper AND oid IN (
    SELECT datdba FROM pg_database WHERE datname = current_database()
    UNION ALL
    SELECT relowner FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'S')
        AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')
)
ORDER BY rolname;
