-- The role that the server logs in with, where it does not exist yet; server_role.sql says what it may.
CREATE ROLE :"role";
