/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wait.c: waiting for an answer, in C, so that no frame of the library is below CHECK_FOR_INTERRUPTS (R16).
 *
 * A wait sleeps on the slot's word and on InterruptPending at once, a second at most; a request is given up before an
 * error leaves. FATAL errors do not come by here: the exit of the process gives up what it has in flight.
 */
#include "shmuring_ext.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/pmsignal.h"
#include "utils/wait_event.h"

/* Longest sleep, ms: then the postmaster is looked for. */
#define SLICE 1000

/* The wait event, as good as the version has it. */
static uint32 wait_event(void)
{
#if PG_VERSION_NUM >= 170000
	static uint32 event = 0;

	if (event == 0)
		event = WaitEventExtensionNew("ShmuringAnswer");
	return event;
#else
	return PG_WAIT_EXTENSION;
#endif
}

/* When the session has waited long enough. */
static uint64 deadline(void)
{
	return shx_timeout > 0 ? shmuring_deadline_ms((uint64)shx_timeout) : UINT64_MAX;
}

/* One sleep, for `ref` or, if that is below 0, for a slot. What the call returned. */
static int sleep_once(struct shmuring_backend *b, shmuring_ref ref, uint64 until)
{
	uint64 slice = shmuring_deadline_ms(SLICE);
	struct shmuring_wait wait = { Min(until, slice), NULL, 0 };
	int code;

	StaticAssertStmt(sizeof(InterruptPending) == sizeof(int), "the interrupt word is an int");
	/* Where interrupts are held off the word stays set: watching it would not sleep at all. */
	if (INTERRUPTS_CAN_BE_PROCESSED())
		wait.interrupt = (const volatile int *)&InterruptPending;
	pgstat_report_wait_start(wait_event());
	code = ref >= 0 ? shmuring_wait(b, ref, &wait) : shmuring_wait_free(b, &wait);
	pgstat_report_wait_end();
	return code;
}

/* What a sleep that brought no answer came to: whether to go on. */
static bool goes_on(int code, uint64 until)
{
	if (code == SHMURING_ERR_INTERRUPTED)
		return true;
	if (code != SHMURING_ERR_TIMED_OUT && code != SHMURING_ERR_COMMUNICATOR_GONE)
		return false;
	if (!PostmasterIsAlive())
		ereport(FATAL, (errcode(ERRCODE_ADMIN_SHUTDOWN),
				errmsg("terminating connection due to unexpected postmaster exit")));
	return shmuring_deadline_ms(0) < until;
}

void shx_log_held(void)
{
	const struct shmuring_header *header = shx_region_memory();

	ereport(LOG, (errmsg("waiting for the communicator to let go of shared buffers"),
		      header != NULL ? errdetail("It is process %u.", header->role.pid) : 0));
}

/*
 * Gives a request up: a read into bounce buffers at once, one into shared buffers when the communicator has let go of
 * them, which takes a moment unless it is stopped while it copies: an error must not leave before, or whoever gets the
 * buffer next is written over (I2, R6). What cannot be cancelled runs to its end, and its slot comes back later.
 */
static void give_up(struct shmuring_backend *b, shmuring_ref ref)
{
	int code;

	for (;;) {
		struct shmuring_wait slice = { shmuring_deadline_ms(SLICE), NULL, 0 };

		code = shmuring_cancel(b, ref, &slice);
		if (code != SHMURING_ERR_TIMED_OUT && code != SHMURING_ERR_INTERRUPTED)
			break;
		if (code == SHMURING_ERR_TIMED_OUT)
			shx_log_held();
	}
	if (code == SHMURING_ERR_ALREADY_COMPLETED)
		(void)shmuring_finish(b, ref, NULL);
	else if (code == SHMURING_ERR_IN_PROGRESS)
		(void)shmuring_forget(b, ref);
}

void shx_wait(struct shmuring_backend *b, shmuring_ref ref, const struct shmuring_request *request)
{
	uint64 until = deadline();

	PG_TRY();
	{
		int code;

		while ((code = sleep_once(b, ref, until)) != 0) {
			CHECK_FOR_INTERRUPTS();
			if (goes_on(code, until))
				continue;
			if (code == SHMURING_ERR_TIMED_OUT || code == SHMURING_ERR_COMMUNICATOR_GONE)
				shx_raise_timeout(request, code == SHMURING_ERR_COMMUNICATOR_GONE);
			shx_raise_call(code, NULL, "wait for an answer");
		}
	}
	PG_CATCH();
	{
		give_up(b, ref);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

void shx_wait_free(struct shmuring_backend *b)
{
	uint64 until = deadline();
	int code;

	while ((code = sleep_once(b, SHMURING_ERR_STALE, until)) < 0) {
		CHECK_FOR_INTERRUPTS();
		if (goes_on(code, until))
			continue;
		if (code == SHMURING_ERR_TIMED_OUT || code == SHMURING_ERR_COMMUNICATOR_GONE)
			shx_raise_no_slot();
		shx_raise_call(code, NULL, "wait for a request slot");
	}
}

int shx_try_call(const struct shmuring_request *request, struct shmuring_completion *done, void *page)
{
	struct shmuring_backend *b = shx_backend();
	const void *from;
	shmuring_ref ref;
	int code = 0, finished;

	shx_wait_free(b);
	ref = shmuring_start(b, request);
	if (ref < 0)
		shx_raise_call((int)ref, NULL, psprintf("start %s", shx_operation(request->opcode)));
	shx_wait(b, ref, request);
	if (page != NULL && (code = shmuring_result(b, ref, done)) == 0 && done->error == 0 &&
	    (code = shmuring_page(b, ref, 0, &from)) == 0)
		memcpy(page, from, BLCKSZ);
	finished = shmuring_finish(b, ref, done);
	if (code < 0 || finished < 0)
		shx_raise_call(code < 0 ? code : finished, NULL, "take the result");
	return done->error;
}

void shx_call(const struct shmuring_request *request, struct shmuring_completion *done, void *page)
{
	if (shx_try_call(request, done, page) != 0)
		shx_raise_result(request, done);
}
