/* SPDX-License-Identifier: Apache-2.0 */
/* errors.c: errors of the library and of requests as errors of PostgreSQL, and the words for what a request is. */
#include "shmuring_ext.h"

#include "common/relpath.h"

static const char *const operations[] = {
	"nop",       "get_page",   "prefetch", "rel_size",    "rel_exists", "db_size",
	"read_slru", "write_page", "extend",   "zero_extend", "create",     "truncate",
	"unlink",    "update_rel_size",        "get_page_at", "sync",
};

static const char *const states[] = {
	"idle", "filling", "submitted", "processing", "copying", "completed", "abandoned", "withdrawn",
};

const char *shx_operation(uint8 opcode)
{
	return opcode < lengthof(operations) ? operations[opcode] : "unknown";
}

const char *shx_state(int state)
{
	return state >= 0 && state < (int)lengthof(states) ? states[state] : "invalid";
}

char *shx_key(Oid spc, Oid db, Oid rel, uint8 fork, uint32 block, uint8 opcode, uint8 count)
{
	const char *name = fork <= MAX_FORKNUM ? forkNames[fork] : "?";

	if (opcode == SHMURING_OP_NOP || opcode == SHMURING_OP_SYNC)
		return pstrdup("no relation");
	if (opcode == SHMURING_OP_DB_SIZE)
		return psprintf("database %u", db);
	if (count == 0)
		return psprintf("%u/%u/%u %s", spc, db, rel, name);
	if (count == 1)
		return psprintf("%u/%u/%u %s block %u", spc, db, rel, name, block);
	return psprintf("%u/%u/%u %s blocks %u to %u", spc, db, rel, name, block, block + count - 1);
}

static char *key_of(const struct shmuring_request *r)
{
	return shx_key(r->spc_oid, r->db_oid, r->rel_number, r->fork, r->block, r->opcode, r->count);
}

void shx_raise_call(int code, const char *text, const char *doing)
{
	int sqlstate = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;

	if (code == SHMURING_ERR_BUG)
		sqlstate = ERRCODE_INTERNAL_ERROR;
	else if (code == -ENOMEM)
		sqlstate = ERRCODE_OUT_OF_MEMORY;
	else if (code == -ENOSPC)
		sqlstate = ERRCODE_DISK_FULL;
	else if (code == SHMURING_ERR_NO_FREE_SLOT || code == SHMURING_ERR_NO_FREE_BUFFER)
		sqlstate = ERRCODE_INSUFFICIENT_RESOURCES;
	ereport(ERROR,
		(errcode(sqlstate), errmsg("could not %s: %s", doing, text != NULL ? text : shmuring_strerror(code)),
		 errdetail("Region \"%s\".", shx_region_file())));
}

/* The SQLSTATE of an answer. */
static int sqlstate_of(int error)
{
	switch (error) {
	case ENOENT:
		return ERRCODE_UNDEFINED_FILE;
	case ENXIO:
	case EINVAL:
		return ERRCODE_INVALID_PARAMETER_VALUE;
	case EBADMSG:
	case EUCLEAN:
		return ERRCODE_DATA_CORRUPTED;
	case EOPNOTSUPP:
	case EROFS:
		return ERRCODE_FEATURE_NOT_SUPPORTED;
	case ERANGE:
		return ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
	case ENOSPC:
		return ERRCODE_DISK_FULL;
	case ETIMEDOUT:
		return ERRCODE_CONNECTION_EXCEPTION;
	default:
		return ERRCODE_IO_ERROR;
	}
}

/* What it means, where strerror does not say it. */
static const char *meaning(int error)
{
	switch (error) {
	case ENOENT:
		return "the page service has no such relation fork";
	case ENXIO:
		return "the block is past the end of the relation fork";
	case EBADMSG:
		return "the page has a wrong checksum";
	case EUCLEAN:
		return "what the page service has stored is damaged or incomplete";
	case EOPNOTSUPP:
		return "the page service cannot do this";
	case ERANGE:
		return "the page service keeps no versions that old";
	case ETIMEDOUT:
		return "the deadline of the request passed";
	default:
		return shmuring_strerror(error);
	}
}

void shx_raise_result(const struct shmuring_request *request, const struct shmuring_completion *done)
{
	int error = done->error;

	ereport(ERROR,
		(errcode(sqlstate_of(error)),
		 errmsg("%s of %s failed: %s", shx_operation(request->opcode), key_of(request), meaning(error)),
		 errdetail("Errno %d after %d attempts.", error, done->attempts),
		 error == ENOENT ? errhint("It may not have been written yet to where the page service reads.") : 0));
}

void shx_raise_no_slot(void)
{
	ereport(ERROR,
		(errcode(ERRCODE_INSUFFICIENT_RESOURCES), errmsg("no request slot came back in time"),
		 errdetail("All %d slots of this process have requests that were given up.", shx_slots_per_backend),
		 errhint("A communicator gives them back: see the view shmuring_communicator.")));
}

void shx_raise_timeout(const struct shmuring_request *request, bool is_gone)
{
	if (is_gone)
		ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("no communicator answered %s of %s", shx_operation(request->opcode), key_of(request)),
			 errdetail("No process serves the region \"%s\".", shx_region_file()),
			 shx_home == SHX_INSIDE ?
				 errhint("See the server's log.") :
				 errhint("See the file that shmuring.communicator_log names, and \"shmuring stat\".")));
	ereport(ERROR,
		(errcode(ERRCODE_CONNECTION_EXCEPTION),
		 errmsg("%s of %s was not answered in time", shx_operation(request->opcode), key_of(request)),
		 errdetail("It was to have all changes up to LSN %X/%X. The communicator lives, "
			   "shmuring.timeout is %d ms.",
			   LSN_FORMAT_ARGS(request->lsn), shx_timeout),
		 shx_home == SHX_INSIDE ?
			 errhint("See the views shmuring_in_flight and shmuring_shards.") :
			 errhint("See the views shmuring_in_flight and shmuring_shards, and \"shmuring stat\".")));
}
