-- The master user of RDS is no superuser: as a member it may grant rights on the role's tables, and migrate them.
GRANT :"owner" TO CURRENT_USER;
