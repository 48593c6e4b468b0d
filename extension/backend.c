/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backend.c: a process's hold on its slots. Process n of PostgreSQL (backends, workers and auxiliary processes alike,
 * by their number in its process table) has slots n * shmuring.slots_per_backend and up; what lies behind is for tools.
 */
#include "shmuring_ext.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/proc.h"

/* How long an exit waits for a mutation of its own, ms; then the next owner of the slots does. */
#define EXIT_PATIENCE 5000

static struct shmuring_region *region = NULL;
static struct shmuring_backend *backend = NULL;
static bool is_settled = false;
static bool has_exit = false;

int shx_processes(void)
{
	return MaxBackends + NUM_AUXILIARY_PROCS;
}

uint32 shx_first_slot(int process)
{
	return (uint32)process * (uint32)shx_slots_per_backend;
}

static int my_process(void)
{
#if PG_VERSION_NUM >= 170000
	return MyProcNumber;
#else
	return MyProc->pgprocno;
#endif
}

struct shmuring_region *shx_region(void)
{
	struct shmuring_error err;
	int code;

	if (region != NULL)
		return region;
	if (shx_shared == NULL || (shx_region_fd < 0 && shx_region_memory() == NULL))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("there is no region"),
				errhint("Add shmuring to shared_preload_libraries, and start the server again.")));
	code = shx_region_attach(&region, &err);
	if (code < 0) {
		region = NULL;
		shx_raise_call(code, err.text, "attach the region");
	}
	return region;
}

void shx_log_leftover(const struct shmuring_leftover *left)
{
	const struct shmuring_raw_request *r = &left->request;
	char *key = shx_key(r->spc_oid, r->db_oid, r->rel_number, r->fork, r->block, r->opcode, r->count);
	const char *fate = "ran to its end";

	if (left->fate == SHMURING_FATE_WITHDRAWN)
		fate = "withdrawn, it did not run";
	else if (left->fate == SHMURING_FATE_ABANDONED)
		fate = "abandoned, its answer will be dropped";
	else if (left->fate == SHMURING_FATE_OWNER_DEAD)
		fate = "not run, its owner is dead";
	else if (left->result.error != 0)
		fate = shmuring_strerror(left->result.error);
	ereport(LOG, (errmsg("completing leftover I/O of slot %u generation %u: %s of %s: %s", left->slot,
			     left->generation, shx_operation(r->opcode), key, fate)));
	pfree(key);
}

/* Whether an exit goes on waiting: without an end for who lives and may copy into shared buffers (I2). */
static bool goes_on(int code, uint64 until)
{
	if (code != SHMURING_ERR_TIMED_OUT && code != SHMURING_ERR_INTERRUPTED &&
	    code != SHMURING_ERR_COMMUNICATOR_GONE)
		return false;
	if (shx_region_memory() == NULL || code == SHMURING_ERR_COMMUNICATOR_GONE)
		return shmuring_deadline_ms(0) < until;
	if (code == SHMURING_ERR_TIMED_OUT)
		shx_log_held();
	return true;
}

/* Gives up what is in flight, and the slots. */
static void leave(int code, Datum arg)
{
	uint64 until = shmuring_deadline_ms(EXIT_PATIENCE);
	int left;

	if (backend != NULL) {
		/* Without the interrupt word: it may be set for good by now. */
		do {
			struct shmuring_wait wait = { shmuring_deadline_ms(1000), NULL, 0 };

			left = shmuring_backend_detach(backend, &wait);
		} while (goes_on(left, until));
		if (left < 0)
			ereport(LOG, (errmsg("leaving requests to the next owner of the slots from %u on: %s",
					     shx_first_slot(my_process()), shmuring_strerror(left))));
		(void)shmuring_backend_free(backend);
		backend = NULL;
	}
	if (region != NULL) {
		(void)shmuring_region_detach(region);
		region = NULL;
	}
}

/* Settles what an earlier owner of the slots left. Where this is interrupted, the next use goes on with it. */
static void settle(void)
{
	struct shmuring_leftover left;

	while (!is_settled) {
		struct shmuring_wait wait = { shmuring_deadline_ms(1000), (const volatile int *)&InterruptPending, 0 };
		int code = shmuring_next_leftover(backend, &wait, &left);

		if (code == 1)
			shx_log_leftover(&left);
		else if (code == 0)
			is_settled = true;
		else if (code == SHMURING_ERR_TIMED_OUT || code == SHMURING_ERR_COMMUNICATOR_GONE)
			ereport(LOG, (errmsg("waiting for leftover I/O in the slots from %u on: %s",
					     shx_first_slot(my_process()), shmuring_strerror(code))));
		else if (code != SHMURING_ERR_INTERRUPTED)
			shx_raise_call(code, NULL, "settle leftover I/O");
		CHECK_FOR_INTERRUPTS();
	}
}

struct shmuring_backend *shx_backend(void)
{
	if (backend == NULL) {
		struct shmuring_error err;
		int code;

		if (!has_exit) {
			before_shmem_exit(leave, (Datum)0);
			has_exit = true;
		}
		code = shmuring_backend_attach(shx_region(), shx_first_slot(my_process()),
					       (uint32)shx_slots_per_backend, &backend, &err);
		if (code < 0) {
			backend = NULL;
			shx_raise_call(code, err.text, "attach to request slots");
		}
		is_settled = false;
	}
	if (!is_settled)
		settle();
	return backend;
}
