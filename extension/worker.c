/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker.c: the communicator inside the server: a background worker that runs the host of the library, and hands the
 * host's log on to the server's.
 *
 * It has no connection to a database: then it is there before the server accepts any, and nothing of the server waits
 * for it. It ends with exit code 1 whatever happens, since after 0 the postmaster would start none anew, and after any
 * other it would restart the server. What it leaves unanswered its successor finishes.
 *
 * The host's threads never call PostgreSQL, and signals are handled by the one thread that does.
 */
#include "shmuring_ext.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/wait_event.h"

#include <shmuring/host.h>

PGDLLEXPORT void shmuring_worker_main(Datum arg);

/* How long unfinished requests are waited for at the stop, ms: readers that are left do as well with a successor. */
#define GRACE 1000
/* How long a stop is waited for before its log is looked at again, ms. */
#define SLICE 50
/* How often the host is looked after, ms. */
#define LOOK_EVERY 1000
/* A worker that dies younger waits for the rest of it, ms, before another one is started. */
#define YOUNG 5000

void shx_worker_register(void)
{
	BackgroundWorker worker;

	if (shx_page_service[0] == '\0') {
		ereport(LOG, (errmsg("no communicator is started: shmuring.page_service is not set")));
		return;
	}
	if (shx_serve_options[0] != '\0')
		ereport(WARNING, (errmsg("shmuring.serve_options has no effect on a communicator inside the server")));
	memset(&worker, 0, sizeof(worker));
	snprintf(worker.bgw_name, BGW_MAXLEN, "shmuring communicator");
	snprintf(worker.bgw_type, BGW_MAXLEN, "shmuring communicator");
	snprintf(worker.bgw_library_name, BGW_MAXLEN, "shmuring");
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "shmuring_worker_main");
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
	worker.bgw_start_time = BgWorkerStart_PostmasterStart;
	/* At once: it waits by itself where that would be too often. */
	worker.bgw_restart_time = 0;
	RegisterBackgroundWorker(&worker);
}

/* The library's levels in PostgreSQL's words. An error of the host's is none that ends the worker. */
static int level_of(const struct shmuring_log_record *record)
{
	switch (record->level) {
	case SHMURING_LOG_ERROR:
	case SHMURING_LOG_WARN:
		return WARNING;
	case SHMURING_LOG_INFO:
		return LOG;
	default:
		return DEBUG1;
	}
}

/* Hands the lines that wait on to the server's log: no more than fit the host's queue, so that it comes to an end. */
static void hand_on_log(struct shmuring_host *host)
{
	static struct shmuring_log_record record;
	int n;

	for (n = 0; n < 1024 && shmuring_host_next_log(host, &record) == 1; n++) {
		if (record.dropped > 0)
			ereport(WARNING,
				(errmsg("lost " UINT64_FORMAT " lines of the communicator's log", record.dropped)));
		ereport(level_of(&record), (errmsg_internal("%s: %s", record.target, record.text)));
	}
}

/* Starts the host; NULL, and a line in the log, if it does not start: an error would have it started anew at once. */
static struct shmuring_host *start(void)
{
	struct shmuring_host *host = NULL;
	struct shmuring_host_config config;
	struct shmuring_error err;

	memset(&config, 0, sizeof(config));
	config.size = sizeof(config);
	/* Stays attached until the process ends: threads that hang may still look at it. */
	if (shx_region_attach(&config.region, &err) < 0) {
		ereport(WARNING, (errmsg("could not start the communicator: %s", err.text),
				  errdetail("It could not attach the region \"%s\".", shx_region_file())));
		return NULL;
	}
	config.service = shx_page_service;
	config.grace_ms = GRACE;
	if (shmuring_host_start(&config, &host, &err) < 0) {
		ereport(WARNING, (errmsg("could not start the communicator: %s", err.text),
				  errhint("See shmuring.page_service.")));
		return NULL;
	}
	return host;
}

/* Until the server, or whoever sends SIGTERM, wants it to end, or the host has died. */
static void serve(struct shmuring_host *host)
{
	while (!ShutdownRequestPending) {
		int events = WaitLatchOrSocket(MyLatch,
					       WL_LATCH_SET | WL_SOCKET_READABLE | WL_TIMEOUT | WL_POSTMASTER_DEATH,
					       shmuring_host_log_fd(host), LOOK_EVERY, PG_WAIT_EXTENSION);

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		hand_on_log(host);
		if (events & WL_POSTMASTER_DEATH)
			return;
		if (shmuring_host_is_running(host) != 1) {
			ereport(WARNING, (errmsg("the communicator has died")));
			return;
		}
	}
}

static void stop(struct shmuring_host *host)
{
	struct shmuring_error err;
	int left;

	do {
		left = shmuring_host_stop(host, SLICE, &err);
		hand_on_log(host);
	} while (left == -ETIMEDOUT);
	if (left > 0)
		ereport(LOG, (errmsg("the communicator leaves %d requests to the next one", left)));
	else if (left < 0)
		ereport(WARNING, (errmsg("the communicator did not end clean: %s", err.text)));
}

/* Waits so that one that cannot live is not started all the time; less if the server ends. */
static void wait_until_grown_up(uint64 end)
{
	uint64 now;

	while (!ShutdownRequestPending && (now = shmuring_deadline_ms(0)) < end) {
		(void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
				(long)((end - now) / 1000000) + 1, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

void shmuring_worker_main(Datum arg)
{
	uint64 grown_up = shmuring_deadline_ms(YOUNG);
	struct shmuring_host *host;

	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	host = start();
	if (host != NULL) {
		serve(host);
		stop(host);
	}
	if (!ShutdownRequestPending)
		wait_until_grown_up(grown_up);
	proc_exit(1);
}
