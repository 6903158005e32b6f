-- The server's role logs in by tokens of IAM, and by nothing else: RDS's pg_hba.conf asks all members of rds_iam for one.
-- So it does of who is a member of this role, the master user.
ALTER ROLE :"role" PASSWORD NULL;
GRANT rds_iam TO :"role";
