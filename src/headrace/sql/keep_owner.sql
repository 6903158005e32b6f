-- What server_role.sql takes from everybody, a role that has worked with its tables until now keeps.
GRANT CONNECT, TEMPORARY ON DATABASE :"database" TO :"owner";
GRANT USAGE, CREATE ON SCHEMA public TO :"owner";
