/*
 * Description: what ends a wait: the deadline, a signal, the interrupt word. And memfds, pools, names. `waits REGION`;
 * nobody serves.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include "check.h"

static volatile int interrupt_pending;

static struct shmuring_rel rel(void)
{
	return shmuring_rel_of(1663, 5, 16384, 0);
}

static void on_alarm(int signal_number)
{
	(void)signal_number;
}

static void *interrupts(void *unused)
{
	(void)unused;
	usleep(30000);
	__atomic_store_n(&interrupt_pending, 1, __ATOMIC_RELEASE);
	return NULL;
}

/* Sends SIGALRM until the wait has ended: one that comes just before the sleep is lost. */
static void alarms(int on)
{
	struct itimerval timer;

	memset(&timer, 0, sizeof timer);
	timer.it_value.tv_usec = on ? 30000 : 0;
	timer.it_interval.tv_usec = on ? 10000 : 0;
	CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
}

static void wait_ends(struct shmuring_backend *b)
{
	struct shmuring_wait brief = {shmuring_deadline_ms(20), NULL, 0};
	struct shmuring_wait wait = patience();
	shmuring_ref ref = shmuring_start_get_page(b, rel(), 1, 1);
	struct sigaction action;
	pthread_t thread;

	CHECK(ref >= 0);
	GIVES(shmuring_wait(b, ref, &brief), SHMURING_ERR_COMMUNICATOR_GONE);
	CHECK(shmuring_deadline_ms(0) >= brief.until);
	GIVES(shmuring_wait_any(b, &ref, 1, &brief), SHMURING_ERR_COMMUNICATOR_GONE);

	memset(&action, 0, sizeof action);
	action.sa_handler = on_alarm;
	CHECK(sigaction(SIGALRM, &action, NULL) == 0);
	alarms(1);
	GIVES(shmuring_wait(b, ref, &wait), SHMURING_ERR_INTERRUPTED);
	alarms(0);

	wait.interrupt = &interrupt_pending;
	CHECK(pthread_create(&thread, NULL, interrupts, NULL) == 0);
	GIVES(shmuring_wait(b, ref, &wait), SHMURING_ERR_INTERRUPTED);
	CHECK(pthread_join(thread, NULL) == 0 && interrupt_pending == 1);
	GIVES(shmuring_wait_any(b, &ref, 1, &wait), SHMURING_ERR_INTERRUPTED);
	interrupt_pending = 0;

	CHECK(shmuring_deadline_ms(0) < wait.until);
	GIVES(shmuring_poll(b, ref), 0);
	GIVES(shmuring_cancel(b, ref, &brief), SHMURING_CANCEL_WITHDRAWN);
	GIVES(shmuring_poll(b, ref), SHMURING_ERR_STALE);
	GIVES(shmuring_free_slot(b), 1);
}

static volatile sig_atomic_t alarms_seen;

/* As PostgreSQL's handlers do. */
static void on_alarm_that_interrupts(int signal_number)
{
	(void)signal_number;
	if (++alarms_seen >= 2)
		interrupt_pending = 1;
}

/* Handlers that are installed with SA_RESTART: behind them the kernel begins a wait on several words anew. */
static void signals_that_restart(struct shmuring_backend *b)
{
	struct shmuring_wait wait = patience();
	struct sigaction action;
	shmuring_ref refs[2];

	refs[0] = shmuring_start_get_page(b, rel(), 1, 1);
	refs[1] = shmuring_start_get_page(b, rel(), 2, 1);
	CHECK(refs[0] >= 0 && refs[1] >= 0);
	memset(&action, 0, sizeof action);
	action.sa_handler = on_alarm;
	action.sa_flags = SA_RESTART;
	CHECK(sigaction(SIGALRM, &action, NULL) == 0);
	alarms(1);
	GIVES(shmuring_wait(b, refs[0], &wait), SHMURING_ERR_INTERRUPTED);
	alarms(0);

	action.sa_handler = on_alarm_that_interrupts;
	CHECK(sigaction(SIGALRM, &action, NULL) == 0);
	wait.interrupt = &interrupt_pending;
	alarms(1);
	GIVES(shmuring_wait(b, refs[0], &wait), SHMURING_ERR_INTERRUPTED);
	interrupt_pending = 0;
	alarms_seen = 0;
	GIVES(shmuring_wait_any(b, refs, 2, &wait), SHMURING_ERR_INTERRUPTED);
	alarms(0);
	interrupt_pending = 0;
	CHECK(shmuring_deadline_ms(0) < wait.until);
	GIVES(shmuring_cancel(b, refs[0], &wait), SHMURING_CANCEL_WITHDRAWN);
	GIVES(shmuring_cancel(b, refs[1], &wait), SHMURING_CANCEL_WITHDRAWN);
}

static void slot_waits(struct shmuring_backend *b)
{
	struct shmuring_wait brief = {shmuring_deadline_ms(10), NULL, 0};
	shmuring_ref refs[3];
	int i;

	/* One slot is cancelled and three are filled: only the cancelled one may come back. */
	for (i = 0; i < 3; i++) {
		refs[i] = shmuring_fill_get_page(b, (uint32_t)i + 1, rel(), 1, 1);
		CHECK(refs[i] >= 0);
	}
	GIVES(shmuring_free_slot(b), SHMURING_ERR_NO_FREE_SLOT);
	GIVES(shmuring_wait_free(b, &brief), SHMURING_ERR_COMMUNICATOR_GONE);
	for (i = 0; i < 3; i++)
		GIVES(shmuring_cancel(b, refs[i], &brief), SHMURING_CANCEL_WITHDRAWN);
}

static void ways_to_a_region(const char *path)
{
	static unsigned char pool[4 * 8192];
	static const uint32_t twice[2] = {3, 3}, beyond[2] = {3, 4}, good[2] = {3, 0};
	struct shmuring_region_options options = {8, 4, 8192, SHMURING_NONE, SHMURING_NONE, {0, 0, 0}};
	struct shmuring_region *region = NULL, *other = NULL;
	struct shmuring_wait wait = patience();
	struct shmuring_region_info info;
	struct shmuring_request r;
	struct shmuring_error err;
	struct shmuring_backend *b;

	GIVES(shmuring_region_create(path, &options, &region, &err), 0);
	GIVES(shmuring_region_detach(region), 0);
	options.slots = 9;
	GIVES(shmuring_region_create(path, &options, &region, &err), SHMURING_ERR_EXISTS);
	GIVES(shmuring_region_observe(path, &region, &err), 0);
	GIVES(shmuring_region_info(region, &info), 0);
	CHECK(info.is_read_only == 1 && info.slots == 8);
	GIVES(shmuring_backend_attach(region, 0, 1, &b, &err), -EROFS);
	GIVES(shmuring_region_register_pool(region, 1, pool, 8192, 4, &err), -EROFS);
	GIVES(shmuring_region_detach(region), 0);

	GIVES(shmuring_region_create_memfd(&options, &region, &err), 0);
	GIVES(shmuring_region_attach_fd(shmuring_region_fd(region), &other, &err), 0);
	GIVES(shmuring_region_detach(other), 0);
	GIVES(shmuring_region_attach_fd(-1, &other, &err), -EBADF);
	GIVES(shmuring_region_register_pool(region, 0, pool, 8192, 4, &err), SHMURING_ERR_BAD_POOL);
	GIVES(shmuring_region_register_pool(region, 1, pool, 8191, 4, &err), SHMURING_ERR_BAD_POOL);
	GIVES(shmuring_region_register_pool(region, 1, pool, 8192, 4, &err), 0);
	GIVES(shmuring_region_register_pool(region, 1, pool, 8192, 4, &err), SHMURING_ERR_BAD_POOL);
	b = backend_of(region, 0, 2);
	shmuring_prep_get_page(&r, rel(), 1, 2, 1);
	shmuring_set_buffers(&r, 1, twice);
	GIVES(shmuring_fill(b, 0, &r), SHMURING_ERR_BAD_BUFFER);
	shmuring_set_buffers(&r, 1, beyond);
	GIVES(shmuring_fill(b, 0, &r), SHMURING_ERR_BAD_BUFFER);
	shmuring_set_buffers(&r, 1, good);
	CHECK(shmuring_start(b, &r) >= 0);
	GIVES(shmuring_backend_detach(b, &wait), 1);
	GIVES(shmuring_backend_free(b), 0);
	GIVES(shmuring_region_detach(region), 0);
	GIVES(shmuring_region_unlink(path), 0);
	GIVES(shmuring_region_unlink(path), -ENOENT);
	GIVES(shmuring_region_attach(path, &region, &err), -ENOENT);
	CHECK(err.code == -ENOENT && strlen(err.text) > 0);
}

int main(int argc, char **argv)
{
	struct shmuring_region *region;
	struct shmuring_backend *b;

	if (argc != 2)
		return 2;
	region = region_at(argv[1]);
	b = backend_of(region, 0, 4);
	wait_ends(b);
	slot_waits(b);
	leave(b, region);

	region = region_at(argv[1]);
	b = backend_of(region, 4, 4);
	signals_that_restart(b);
	leave(b, region);
	ways_to_a_region(argv[1]);
	return 0;
}
