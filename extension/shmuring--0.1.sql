/* What CREATE EXTENSION shmuring makes. A change of it is a script shmuring--0.1--0.2.sql, never an edit of this one. */
\echo Use "CREATE EXTENSION shmuring" to load this file. \quit

CREATE FUNCTION shmuring_version() RETURNS text
	AS 'MODULE_PATHNAME', 'shmuring_version_sql' LANGUAGE C STABLE STRICT PARALLEL SAFE;
