/*
 * Description: two hosts in one process, each over a region and a store of its own, with backends at work, threads that
 * tell of ingest, and signals that come all the time. One of them is stopped in the middle of it and started again, many
 * times: no request is lost, and the other goes on. `hosts DIRECTORY`
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include "check.h"
#include "shmuring/host.h"

#define PAGE SHMURING_DEFAULT_BLOCK_SIZE
#define BACKENDS 2
#define BLOCKS 8
#define STARTS 6

struct side {
	const char *name;
	struct shmuring_region *region;
	struct shmuring_host *host;
	/* Requests that were answered, lines that said that it serves. */
	unsigned long done, served;
	int is_over;
};

struct thread {
	pthread_t id;
	struct side *side;
	uint32_t number;
};

static volatile sig_atomic_t signals;

static void on_signal(int signal_number)
{
	(void)signal_number;
	signals = 1;
}

/* SIGALRM each ms, whose handler has SA_RESTART, or not. */
static void signals_come(int flags)
{
	struct sigaction action;
	struct itimerval timer;

	memset(&action, 0, sizeof action);
	memset(&timer, 0, sizeof timer);
	action.sa_handler = on_signal;
	action.sa_flags = flags;
	timer.it_value.tv_usec = timer.it_interval.tv_usec = 1000;
	CHECK(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &timer, NULL) == 0);
}

static void log_it(void *user, const struct shmuring_log_record *record)
{
	struct side *side = (struct side *)user;

	/* Of this host, and no other's. */
	if (strncmp(record->text, "serving", 7) == 0) {
		CHECK(strstr(record->text, side->name) != NULL);
		__atomic_add_fetch(&side->served, 1, __ATOMIC_SEQ_CST);
	}
}

static int over(const struct side *side)
{
	return __atomic_load_n(&side->is_over, __ATOMIC_SEQ_CST);
}

/* Waits as long as it takes, in pieces, through signals and stops; gives the errno of the result. */
static int done(struct shmuring_backend *b, struct side *side, const struct shmuring_request *request, char *page)
{
	struct shmuring_completion result;
	shmuring_ref ref = shmuring_start(b, request);
	const void *at;
	int rc;

	CHECK(ref >= 0);
	do {
		struct shmuring_wait wait = {shmuring_deadline_ms(50), NULL, 0};

		rc = shmuring_wait(b, ref, &wait);
		CHECK(rc == 0 || rc == SHMURING_ERR_TIMED_OUT || rc == SHMURING_ERR_COMMUNICATOR_GONE ||
		      rc == SHMURING_ERR_INTERRUPTED);
	} while (rc != 0);
	GIVES(shmuring_result(b, ref, &result), 0);
	if (page != NULL && result.error == 0) {
		GIVES(shmuring_page(b, ref, 0, &at), 0);
		memcpy(page, at, PAGE);
	}
	GIVES(shmuring_finish(b, ref, &result), 0);
	__atomic_add_fetch(&side->done, 1, __ATOMIC_SEQ_CST);
	return result.error;
}

static void *works(void *of)
{
	const struct thread *self = (const struct thread *)of;
	struct shmuring_rel rel = shmuring_rel_of(1663, 5, 100 + self->number, 0);
	struct shmuring_backend *b = backend_of(self->side->region, self->number * 4, 4);
	char image[PAGE], page[PAGE];
	struct shmuring_wait wait;
	struct shmuring_request r;
	uint32_t block, version;
	int rc;

	shmuring_prep_create(&r, rel, 1);
	GIVES(done(b, self->side, &r, NULL), 0);
	shmuring_prep_zero_extend(&r, rel, 0, BLOCKS, 2);
	GIVES(done(b, self->side, &r, NULL), 0);
	for (version = 1; !over(self->side); version++) {
		block = version % BLOCKS;
		memset(image, (int)(version ^ self->number), PAGE);
		shmuring_prep_write_page(&r, rel, block, 1, 8 * (uint64_t)version, image);
		GIVES(done(b, self->side, &r, NULL), 0);
		shmuring_prep_get_page(&r, rel, block, 1, 8 * (uint64_t)version);
		GIVES(done(b, self->side, &r, page), 0);
		CHECK(memcmp(page, image, PAGE) == 0);
	}
	do {
		wait = patience();
		rc = shmuring_backend_detach(b, &wait);
	} while (rc == SHMURING_ERR_INTERRUPTED);
	GIVES(rc, 0);
	GIVES(shmuring_backend_free(b), 0);
	return NULL;
}

/* To the side that stays, whose handle does not change. */
static void *tells(void *of)
{
	const struct side *side = ((const struct thread *)of)->side;
	uint64_t n;

	for (n = 0; !over(side); n++) {
		const uint64_t lsns[] = {n, UINT64_MAX - n, 0, UINT64_C(1) << n % 64};

		GIVES(shmuring_host_feedback(side->host, 0, lsns[n % 4]), 0);
		GIVES(shmuring_host_feedback(side->host, 1 + (uint32_t)n, lsns[n % 4]), SHMURING_ERR_BAD_REQUEST);
		GIVES(shmuring_host_feedback(side->host, UINT32_MAX, n), SHMURING_ERR_BAD_REQUEST);
		usleep(100);
	}
	return NULL;
}

static void start(struct side *side, const char *directory, uint32_t epoch)
{
	struct shmuring_host_config config;
	struct shmuring_error err;
	char service[256];
	int rc;

	memset(&config, 0, sizeof config);
	snprintf(service, sizeof service, "store:%s/%s", directory, side->name);
	config.size = sizeof config;
	config.region = side->region;
	config.service = service;
	config.log = log_it;
	config.user = side;
	config.threads = 1;
	rc = shmuring_host_start(&config, &side->host, &err);
	if (rc != 0)
		fprintf(stderr, "%s: %s\n", side->name, err.text);
	GIVES(rc, 0);
	GIVES(shmuring_host_epoch(side->host), epoch);
	memset(service, 'x', sizeof service);
}

static void *stops(void *of)
{
	struct side *side = ((struct thread *)of)->side;
	int rc;

	do {
		rc = shmuring_host_stop(side->host, 3, NULL);
		/* What was told before the end is told after it too. */
		GIVES(shmuring_host_feedback(side->host, 0, UINT64_MAX), 0);
	} while (rc == -ETIMEDOUT);
	GIVES(rc, 0);
	GIVES(shmuring_host_is_running(side->host), 0);
	return NULL;
}

/* By several threads at once. */
static void stop(struct side *side)
{
	struct thread threads[3];
	size_t i;

	GIVES(shmuring_host_free(side->host), -EBUSY);
	for (i = 0; i < 3; i++) {
		threads[i].side = side;
		CHECK(pthread_create(&threads[i].id, NULL, stops, &threads[i]) == 0);
	}
	for (i = 0; i < 3; i++)
		CHECK(pthread_join(threads[i].id, NULL) == 0);
	GIVES(shmuring_host_free(side->host), 0);
}

static void goes_on(const struct side *side)
{
	unsigned long before = __atomic_load_n(&side->done, __ATOMIC_SEQ_CST);

	while (__atomic_load_n(&side->done, __ATOMIC_SEQ_CST) < before + 4)
		usleep(1000);
}

int main(int argc, char **argv)
{
	struct shmuring_region_options options = {BACKENDS * 4, 2, PAGE, 64, 64, {0, 0, 0}};
	struct side stays = {"stays", NULL, NULL, 0, 0, 0}, restarts = {"restarts", NULL, NULL, 0, 0, 0};
	struct side *both[2];
	struct thread threads[2 * BACKENDS + 1];
	uint32_t epoch, i;

	if (argc != 2)
		return 2;
	both[0] = &stays;
	both[1] = &restarts;
	signals_come(SA_RESTART);
	for (i = 0; i < 2; i++) {
		GIVES(shmuring_region_create_memfd(&options, &both[i]->region, NULL), 0);
		start(both[i], argv[1], 1);
	}
	for (i = 0; i < 2 * BACKENDS; i++) {
		threads[i].side = both[i / BACKENDS];
		threads[i].number = i % BACKENDS;
		CHECK(pthread_create(&threads[i].id, NULL, works, &threads[i]) == 0);
	}
	threads[i].side = &stays;
	CHECK(pthread_create(&threads[i].id, NULL, tells, &threads[i]) == 0);
	for (epoch = 2; epoch < 2 + STARTS; epoch++) {
		signals_come(epoch % 2 ? SA_RESTART : 0);
		goes_on(&restarts);
		stop(&restarts);
		goes_on(&stays);
		start(&restarts, argv[1], epoch);
	}
	goes_on(&restarts);
	for (i = 0; i < 2; i++)
		__atomic_store_n(&both[i]->is_over, 1, __ATOMIC_SEQ_CST);
	for (i = 0; i <= 2 * BACKENDS; i++)
		CHECK(pthread_join(threads[i].id, NULL) == 0);
	CHECK(signals);
	for (i = 0; i < 2; i++) {
		stop(both[i]);
		GIVES(shmuring_region_detach(both[i]->region), 0);
	}
	CHECK(stays.served == 1 && restarts.served == 1 + STARTS);
	printf("answered %lu and %lu\n", stays.done, restarts.done);
	return 0;
}
