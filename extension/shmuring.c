/* SPDX-License-Identifier: Apache-2.0 */
/* shmuring.c: the module of the extension: what PostgreSQL calls when it loads it. */
#include "shmuring_ext.h"

#include "utils/builtins.h"

PG_MODULE_MAGIC;

void _PG_init(void);
PG_FUNCTION_INFO_V1(shmuring_version_sql);

/* Called once in each process that loads the library; in the postmaster with shared_preload_libraries. */
void _PG_init(void)
{
	if (shmuring_check_version(SHMURING_VERSION_NUMBER, SHMURING_ABI_VERSION) < 0)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("shmuring was linked with a library of version %s, "
									"and compiled for %d.%d.%d",
									shmuring_version(), SHMURING_VERSION_MAJOR,
									SHMURING_VERSION_MINOR, SHMURING_VERSION_PATCH)));
}

/* Version of the library inside. */
Datum shmuring_version_sql(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(shmuring_version()));
}
