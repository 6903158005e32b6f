-- What the server's role may: work with the data of this one database, and make tables of its own (headrace_*).
-- It may not change or drop MLflow's tables, make databases or roles, or become another role. MLflow's migrations
-- (`headrace db upgrade`) are the master user's, who runs this file too, in the database itself:
--   psql --dbname mlflow --set database=mlflow --set role=mlflow_server --set password=... --file server_role.sql
ALTER ROLE :"role" WITH LOGIN NOCREATEDB NOCREATEROLE PASSWORD :'password';

-- The master user of RDS is no superuser: as a member it may work with the tables that the role makes.
GRANT :"role" TO CURRENT_USER;

REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE :"database" TO :"role";

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO :"role";
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO :"role";
GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA public TO :"role";
REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM :"role";

-- and on the tables that later migrations make
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"role";
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO :"role";
