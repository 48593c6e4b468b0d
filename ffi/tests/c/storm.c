/*
 * Description: a storm of cancels while the communicator, another process, copies into a registered pool, and is killed
 * at times. After a cancel no byte of its buffers changes; what was not cancelled is read whole. `storm REGION`; the
 * communicator is this program with more arguments.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "shmuring/host.h"

#define PAGE 8192
#define POOL 3
#define SLOTS 4
/* Blocks of each request; each request of a round has buffers of its own. */
#define COUNT 4
#define BLOCKS (SLOTS * COUNT)
#define KILLS 6
/* How long the storm lasts; longer only until everything that it is about has happened. */
#define STORM_MS 1000
#define PATIENCE_MS 60000

struct storm {
	const char *program;
	const char *region;
	int pool;
	unsigned char *base;
	struct shmuring_backend *b;
	pid_t communicator;
	uint32_t random;
	/* What happened: cancels that met Copying, that gave the request up, that came too late; deaths in Copying. */
	long copying, given_up, late, kills;
};

static unsigned char *mapped(int fd)
{
	void *at = mmap(NULL, (size_t)BLOCKS * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	CHECK(at != MAP_FAILED);
	return (unsigned char *)at;
}

static int is_all(const unsigned char *page, int byte)
{
	return page[0] == (unsigned char)byte && memcmp(page, page + 1, PAGE - 1) == 0;
}

/*
 * Delivers block by block, out of Copying in between, as one does that waits for each. At times it gives its cpu away
 * between two copies of one block: whoever cancels then meets Copying, as if it had been preempted there.
 */
static void answer(struct shmuring_communicator *c, const struct shmuring_claim *claim)
{
	static unsigned char page[PAGE];
	static unsigned answered;
	uint32_t i, yields = ++answered % 4;
	int rc = 0;

	for (i = 0; i < claim->count && rc == 0; i++) {
		memset(page, (int)(claim->block + i), sizeof page);
		rc = shmuring_claim_deliver(c, claim->ref, i, page, PAGE);
		if (rc == 0 && i == yields) {
			sched_yield();
			rc = shmuring_claim_deliver(c, claim->ref, i, page, PAGE);
		}
		if (rc == 0)
			rc = shmuring_claim_suspend(c, claim->ref);
	}
	if (rc == 0)
		rc = shmuring_claim_complete(c, claim->ref, claim->count, 0);
	CHECK(rc == 0 || rc == SHMURING_ERR_WITHDRAWN);
}

/* Until it is killed, or the storm is gone. */
static int serve(const char *path, int pool, int serving)
{
	struct shmuring_region *region = region_at(path);
	struct shmuring_communicator *c = NULL;
	struct shmuring_claim claims[8];
	pid_t storm = getppid();
	char byte = 's';
	int i, n;

	GIVES(shmuring_region_register_pool(region, POOL, mapped(pool), PAGE, BLOCKS, NULL), 0);
	GIVES(shmuring_communicator_take_role(region, &c, NULL), 0);
	CHECK(write(serving, &byte, 1) == 1);
	n = shmuring_communicator_sweep(c, claims, 8);
	while (getppid() == storm) {
		CHECK(n >= 0);
		for (i = 0; i < n; i++)
			answer(c, &claims[i]);
		n = shmuring_communicator_reap_or_park(c, SHMURING_STATE_PROCESSING, claims, 8, 10000000);
		if (n == 0)
			n = shmuring_communicator_audit(c, claims, 8);
	}
	return 1;
}

/* By exec: a child that shared our descriptors would hold our locks. */
static void start_communicator(struct storm *s)
{
	char pool[16], serving[16], byte;
	int ends[2];

	CHECK(pipe(ends) == 0);
	snprintf(pool, sizeof pool, "%d", s->pool);
	snprintf(serving, sizeof serving, "%d", ends[1]);
	s->communicator = fork();
	if (s->communicator == 0) {
		execl(s->program, s->program, s->region, pool, serving, (char *)NULL);
		_exit(127);
	}
	CHECK(s->communicator > 0 && close(ends[1]) == 0);
	CHECK(read(ends[0], &byte, 1) == 1 && close(ends[0]) == 0);
}

static void kill_communicator(struct storm *s)
{
	CHECK(kill(s->communicator, SIGKILL) == 0);
}

static void bury_communicator(const struct storm *s)
{
	int status = 0;

	/* It had not ended by itself, because of a check that failed there. */
	CHECK(waitpid(s->communicator, &status, 0) == s->communicator);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static uint32_t next(struct storm *s)
{
	s->random = s->random * 1664525u + 1013904223u;
	return s->random >> 8;
}

static unsigned char *page_of(const struct storm *s, int request, int i)
{
	return s->base + (size_t)(request * COUNT + i) * PAGE;
}

static shmuring_ref start_read(struct storm *s, int request)
{
	struct shmuring_request r;
	uint32_t buffers[COUNT];
	shmuring_ref ref;
	int i;

	for (i = 0; i < COUNT; i++)
		buffers[i] = (uint32_t)(request * COUNT + i);
	shmuring_prep_get_page(&r, shmuring_rel_of(1663, 5, 16384, 0), (uint32_t)(request * 16), COUNT, 1);
	shmuring_set_buffers(&r, POOL, buffers);
	ref = shmuring_start(s->b, &r);
	CHECK(ref >= 0);
	return ref;
}

/* Until the slot is being copied to, or is past that: 1 if it is. */
static int reaches_copying(const struct storm *s, shmuring_ref ref)
{
	uint64_t until = shmuring_deadline_ms(20000);

	for (;;) {
		int state = shmuring_state(s->b, (uint32_t)shmuring_ref_slot(ref));

		if (state == SHMURING_STATE_COPYING)
			return 1;
		if (state == SHMURING_STATE_COMPLETED)
			return 0;
		CHECK(shmuring_deadline_ms(0) < until);
	}
}

/* Cancels, and says whether the buffers are ours again by that; else the read is whole. */
static int cancel(struct storm *s, int request, shmuring_ref ref)
{
	struct shmuring_wait wait = patience();
	struct shmuring_completion done;
	int rc, i;

	s->copying += shmuring_state(s->b, (uint32_t)shmuring_ref_slot(ref)) == SHMURING_STATE_COPYING;
	rc = shmuring_cancel(s->b, ref, &wait);
	if (rc == SHMURING_CANCEL_ABANDONED || rc == SHMURING_CANCEL_WITHDRAWN) {
		s->given_up++;
		return 1;
	}
	GIVES(rc, SHMURING_ERR_ALREADY_COMPLETED);
	s->late++;
	GIVES(shmuring_finish(s->b, ref, &done), 0);
	CHECK(done.error == 0 && done.value == COUNT);
	for (i = 0; i < COUNT; i++)
		CHECK(is_all(page_of(s, request, i), request * 16 + i));
	return 0;
}

static void check_mine(const struct storm *s, const int *mine)
{
	int i, k;

	for (k = 0; k < SLOTS; k++)
		for (i = 0; mine[k] != 0 && i < COUNT; i++)
			CHECK(is_all(page_of(s, k, i), mine[k]));
}

/* Reads with every slot, cancelled one by one. With `kills` the communicator dies where it copies for the first. */
static void one_round(struct storm *s, int kills)
{
	uint64_t until = shmuring_deadline_ms(PATIENCE_MS);
	shmuring_ref refs[SLOTS];
	int mine[SLOTS] = {0}, i, k, is_dead = 0;

	for (k = 0; k < SLOTS; k++)
		refs[k] = start_read(s, k);
	if (kills && reaches_copying(s, refs[0])) {
		kill_communicator(s);
		is_dead = 1;
		s->kills++;
	}
	for (k = 0; k < SLOTS; k++) {
		volatile uint32_t spin = next(s) % 4096;

		/* Sometimes where it copies, else anywhere. */
		if (!is_dead && spin % 2 == 0)
			reaches_copying(s, refs[k]);
		while (!is_dead && spin != 0)
			spin = spin - 1;
		if (cancel(s, k, refs[k])) {
			mine[k] = 0x80 + (int)(next(s) % 0x80);
			memset(page_of(s, k, 0), mine[k], (size_t)COUNT * PAGE);
		}
	}
	check_mine(s, mine);
	if (is_dead) {
		bury_communicator(s);
		start_communicator(s);
	}
	/* Until the communicator has found out about all of them, and a while longer. */
	while (shmuring_backend_usable(s->b) < SLOTS) {
		CHECK(shmuring_deadline_ms(0) < until);
		check_mine(s, mine);
		sched_yield();
	}
	for (i = 0; i < 4; i++)
		check_mine(s, mine);
}

int main(int argc, char **argv)
{
	struct shmuring_region *region;
	struct storm s;
	uint64_t start, end, give_up, kill_at;
	long n;

	if (argc == 4)
		return serve(argv[1], atoi(argv[2]), atoi(argv[3]));
	if (argc != 2)
		return 2;
	memset(&s, 0, sizeof s);
	s.program = argv[0];
	s.region = argv[1];
	s.random = (uint32_t)getpid();
	/* Handed down by exec. */
	s.pool = memfd_create("pool", 0);
	CHECK(s.pool >= 0 && ftruncate(s.pool, (off_t)BLOCKS * PAGE) == 0);
	s.base = mapped(s.pool);
	start_communicator(&s);
	region = region_at(argv[1]);
	GIVES(shmuring_region_register_pool(region, POOL, s.base, PAGE, BLOCKS, NULL), 0);
	s.b = backend_of(region, 0, SLOTS);

	start = shmuring_deadline_ms(0);
	end = shmuring_deadline_ms(STORM_MS);
	give_up = shmuring_deadline_ms(PATIENCE_MS);
	for (n = 1; s.kills < KILLS || s.copying == 0 || s.given_up == 0 || shmuring_deadline_ms(0) < end; n++) {
		kill_at = start + (end - start) / KILLS * (uint64_t)s.kills;
		one_round(&s, s.kills < KILLS && shmuring_deadline_ms(0) >= kill_at);
		CHECK(shmuring_deadline_ms(0) < give_up);
	}
	printf("rounds %ld copying %ld given up %ld late %ld kills %ld\n", n - 1, s.copying, s.given_up, s.late, s.kills);
	kill_communicator(&s);
	bury_communicator(&s);
	leave(s.b, region);
	return 0;
}
