/* SPDX-License-Identifier: Apache-2.0 */
/* shmuring.c: the module of the extension: what PostgreSQL calls when it loads it, and the settings. */
#include "shmuring_ext.h"

#include "miscadmin.h"
#include "storage/bufpage.h"
#include "utils/builtins.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

void _PG_init(void);
PG_FUNCTION_INFO_V1(shmuring_version_sql);

char *shx_region_path;
int shx_slots_per_backend = 8;
int shx_bounce_per_slot = 1;
int shx_home = SHX_BESIDE;
char *shx_communicator_path;
char *shx_communicator_log;
char *shx_page_service;
char *shx_serve_options;
int shx_timeout = 60000;
int shx_compare_local = SHX_NONE;

static const struct config_enum_entry homes[] = {
	{ "beside", SHX_BESIDE, false },
	{ "inside", SHX_INSIDE, false },
	{ "external", SHX_EXTERNAL, false },
	{ NULL, 0, false },
};

static const struct config_enum_entry compares[] = {
	{ "none", SHX_NONE, false },
	{ "prefetch", SHX_PREFETCH, false },
	{ "lfc", SHX_LFC, false },
	{ "all", SHX_ALL, false },
	{ NULL, 0, false },
};

/* Settings that hold as long as the server runs. */
static void define_server_settings(void)
{
	DefineCustomStringVariable("shmuring.region", "File of the region.",
				   "Empty: /dev/shm/shmuring.SYSTEM_IDENTIFIER.PORT.", &shx_region_path, "",
				   PGC_POSTMASTER, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomIntVariable("shmuring.slots_per_backend", "Requests that a process can have in flight.", NULL,
				&shx_slots_per_backend, 8, 1, 128, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("shmuring.bounce_per_slot", "Bounce buffers of one block for each request slot.", NULL,
				&shx_bounce_per_slot, 1, 1, 32, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("shmuring.communicator", "Where the communicator lives, and who starts it.",
				 "beside: the server, as a program of its own; inside: the server, as a background "
				 "worker; external: somebody else, with \"shmuring serve\".",
				 &shx_home, SHX_BESIDE, homes, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("shmuring.communicator_path", "The program shmuring.", NULL, &shx_communicator_path,
				   "shmuring", PGC_POSTMASTER, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomStringVariable("shmuring.communicator_log", "File that the communicator's log is appended to.",
				   NULL, &shx_communicator_log, "shmuring.log", PGC_POSTMASTER, GUC_SUPERUSER_ONLY,
				   NULL, NULL, NULL);
	DefineCustomStringVariable("shmuring.page_service", "Where the communicator gets pages from.",
				   "As --service of \"shmuring serve\". Empty: no communicator is started.",
				   &shx_page_service, "", PGC_POSTMASTER, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomStringVariable("shmuring.serve_options", "Further options of \"shmuring serve\".",
				   "Blanks separate them.", &shx_serve_options, "", PGC_POSTMASTER, GUC_SUPERUSER_ONLY,
				   NULL, NULL, NULL);
}

static void define_session_settings(void)
{
	DefineCustomIntVariable("shmuring.timeout", "Longest wait for an answer of the communicator.", "0: no limit.",
				&shx_timeout, 60000, 0, INT_MAX, PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomEnumVariable("shmuring.debug_compare_local", "Which pages are compared with this server's own.",
				 "Those of the prefetch buffer, of the page cache too (lfc), or all.",
				 &shx_compare_local, SHX_NONE, compares, PGC_SUSET, GUC_NOT_IN_SAMPLE, NULL, NULL,
				 NULL);
}

/* Called once in each process that loads the library; in the postmaster with shared_preload_libraries. */
void _PG_init(void)
{
	if (shmuring_check_version(SHMURING_VERSION_NUMBER, SHMURING_ABI_VERSION) < 0)
		ereport(ERROR,
			(errcode(ERRCODE_INTERNAL_ERROR),
			 errmsg("the shmuring library inside is of version %s, the extension was compiled for %d.%d.%d",
				shmuring_version(), SHMURING_VERSION_MAJOR, SHMURING_VERSION_MINOR,
				SHMURING_VERSION_PATCH)));
	if (process_shared_preload_libraries_in_progress) {
		define_server_settings();
		shx_server_init();
		if (shx_home == SHX_INSIDE)
			shx_worker_register();
	}
	define_session_settings();
	MarkGUCPrefixReserved("shmuring");
}

/* Version of the library inside. */
Datum shmuring_version_sql(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(shmuring_version()));
}
