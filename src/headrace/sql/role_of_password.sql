-- Back from tokens of IAM: the role logs in with a password again, and so does who is a member of it, the master user.
ALTER ROLE :"role" PASSWORD :'password';
REVOKE rds_iam FROM :"role";
