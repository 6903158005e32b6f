-- What `headrace db create` runs where the database does not exist. By hand:
--   psql --dbname postgres --set database=mlflow --file create_database.sql
CREATE DATABASE :"database";
