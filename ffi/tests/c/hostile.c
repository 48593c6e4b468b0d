/*
 * Description: somebody writes anything anywhere into the region, while backends ask, a communicator keeps sizes, and its
 * threads answer whatever they have a name of, twice and too late too. No call hangs, panics, or tells of a bug.
 * `hostile MS SEED`
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "shmuring/host.h"

#define SLOTS 32
#define BACKENDS 2
#define ANSWERERS 2
#define LATELY 64
#define PAGE 512

static struct shmuring_region *region;
static struct shmuring_communicator *c;
static uint64_t *words;
static size_t n_words;
static int is_over;
/* Claims that were handed out lately. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct shmuring_claim lately[LATELY];
static unsigned long seen;

struct random {
	uint64_t state;
};

static uint64_t next(struct random *r)
{
	r->state ^= r->state << 13;
	r->state ^= r->state >> 7;
	r->state ^= r->state << 17;
	return r->state;
}

static uint32_t below(struct random *r, uint32_t n)
{
	return (uint32_t)(next(r) % n);
}

static struct random seeded(unsigned long seed, int who)
{
	struct random r;

	r.state = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)who;
	next(&r);
	return r;
}

struct thread {
	pthread_t id;
	struct random random;
	int who;
	unsigned long calls;
};

static int over(void)
{
	return __atomic_load_n(&is_over, __ATOMIC_RELAXED);
}

/* What every call here may come to: anything but a bug. */
static long long fine(struct thread *self, long long rc, const char *call)
{
	self->calls++;
	if (rc == SHMURING_ERR_BUG) {
		fprintf(stderr, "%s: %s\n", call, shmuring_strerror((int)rc));
		exit(1);
	}
	return rc;
}

#define FINE(call) fine(self, (long long)(call), #call)

static void *vandal(void *of)
{
	struct thread *self = (struct thread *)of;
	struct random *r = &self->random;
	/* The header and the slots are hit more often than the tables behind them. */
	size_t near = n_words < 4096 ? n_words : 4096;

	for (; !over(); self->calls++) {
		size_t i = next(r) % (below(r, 4) ? near : n_words);
		uint64_t before = __atomic_load_n(&words[i], __ATOMIC_RELAXED);
		uint64_t value;

		switch (below(r, 6)) {
		case 0: value = 0; break;
		case 1: value = next(r) % 64; break;
		case 2: value = UINT64_MAX - next(r) % 4; break;
		case 3: value = before ^ UINT64_C(1) << below(r, 64); break;
		/* Another state of the same request; its own again. */
		case 4: value = (before & ~UINT64_C(7)) | below(r, 8); break;
		default: value = next(r); break;
		}
		__atomic_store_n(&words[i], value, __ATOMIC_RELAXED);
		usleep(below(r, 100));
		/* Mostly it was nothing: what is lost for good ends all that could go wrong. */
		if (below(r, 32))
			__atomic_store_n(&words[i], before, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void *backend(void *of)
{
	struct thread *self = (struct thread *)of;
	struct random *r = &self->random;
	static char image[BACKENDS][32 * PAGE];
	struct shmuring_wait wait = patience();
	struct shmuring_completion done;
	struct shmuring_rel_size size;
	struct shmuring_leftover left;
	struct shmuring_request request;
	struct shmuring_backend *b = NULL;
	shmuring_ref refs[8];
	const void *page;
	long long gone;

	memset(refs, 0xff, sizeof refs);

	while (b == NULL && !over())
		FINE(shmuring_backend_attach(region, (uint32_t)self->who * 8, 8, &b, NULL));
	while (!over()) {
		shmuring_ref *ref = &refs[below(r, 8)];
		struct shmuring_rel rel = shmuring_rel_of(1663, 5, below(r, 4), 0);
		uint8_t count = (uint8_t)(1 + below(r, 3));

		wait.until = shmuring_deadline_ms(below(r, 3));
		switch (below(r, 12)) {
		case 0: shmuring_prep_create(&request, rel, next(r)); break;
		case 1: shmuring_prep_zero_extend(&request, rel, below(r, 100), 1 + below(r, 9), next(r)); break;
		case 2: shmuring_prep_rel_size(&request, rel, next(r), 1); break;
		case 3: shmuring_prep_write_page(&request, rel, 1, count, next(r), image[self->who]); break;
		case 4: shmuring_prep_truncate(&request, rel, below(r, 100), next(r)); break;
		default: shmuring_prep_get_page(&request, rel, below(r, 100), count, next(r)); break;
		}
		if (*ref < 0)
			*ref = (shmuring_ref)FINE(shmuring_start(b, &request));
		FINE(shmuring_cached_rel_size(b, rel, &size));
		FINE(shmuring_poll(b, *ref));
		FINE(below(r, 2) ? shmuring_wait(b, *ref, &wait) : shmuring_wait_any(b, refs, 8, &wait));
		FINE(shmuring_result(b, *ref, &done));
		FINE(shmuring_page(b, *ref, 0, &page));
		gone = FINE(shmuring_finish(b, *ref, &done));
		if (gone != 0 && below(r, 4) == 0)
			gone = FINE(below(r, 2) ? shmuring_cancel(b, *ref, &wait) : shmuring_forget(b, *ref));
		if (gone >= 0 || gone == SHMURING_ERR_STALE)
			*ref = -1;
		FINE(shmuring_wait_free(b, &wait));
		FINE(shmuring_next_leftover(b, &wait, &left));
	}
	FINE(shmuring_backend_detach(b, &wait));
	FINE(shmuring_backend_free(b));
	return NULL;
}

static void *answerer(void *of)
{
	struct thread *self = (struct thread *)of;
	struct random *r = &self->random;
	char page[PAGE] = {1};

	while (!over()) {
		shmuring_ref name;
		uint64_t lsn;
		uint32_t i = below(r, 4);

		pthread_mutex_lock(&lock);
		name = lately[below(r, LATELY)].ref;
		pthread_mutex_unlock(&lock);
		/* One that was never given. */
		if (below(r, 50) == 0)
			name = (shmuring_ref)next(r);
		switch (below(r, 12)) {
		case 0: FINE(shmuring_claim_is_cancelled(c, name)); break;
		case 1: FINE(shmuring_claim_block_lsn(c, name, i, &lsn)); break;
		case 2: FINE(shmuring_claim_begin_copy(c, name)); break;
		case 3: FINE(shmuring_claim_suspend(c, name)); break;
		case 4: FINE(shmuring_claim_forget_size(c, name)); break;
		case 5: FINE(shmuring_claim_drop(c, name)); break;
		case 6: FINE(shmuring_claim_fail(c, name, EIO, i, 1)); break;
		case 7: FINE(shmuring_claim_take_image(c, name, i, page, PAGE)); break;
		case 8: FINE(shmuring_claim_deliver(c, name, i, page, below(r, 2 * PAGE))); break;
		default: FINE(shmuring_claim_complete(c, name, next(r), next(r))); break;
		}
		FINE(shmuring_communicator_wake(c));
	}
	return NULL;
}

static void *reaper(void *of)
{
	struct thread *self = (struct thread *)of;
	struct random *r = &self->random;
	struct shmuring_claim claims[8];
	long long n, i;

	while (!over()) {
		uint32_t to = below(r, 2) ? SHMURING_STATE_COPYING : SHMURING_STATE_PROCESSING;

		switch (below(r, 4)) {
		case 0: n = FINE(shmuring_communicator_reap_or_park(c, to, claims, 8, below(r, 1000000))); break;
		case 1: n = FINE(shmuring_communicator_audit(c, claims, 8)); break;
		case 2: n = FINE(shmuring_communicator_sweep(c, claims, below(r, 9))); break;
		default: n = FINE(shmuring_communicator_reap(c, to, claims, below(r, 9))); break;
		}
		CHECK(n >= 0 && n <= 8);
		pthread_mutex_lock(&lock);
		for (i = 0; i < n; i++)
			lately[seen++ % LATELY] = claims[i];
		pthread_mutex_unlock(&lock);
		if (below(r, 20) == 0)
			FINE(shmuring_communicator_keep_sizes(c, below(r, 3)));
		FINE(shmuring_communicator_inherited(c));
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct shmuring_region_options options = {SLOTS, 4, PAGE, 64, 64, {0, 0, 0}};
	void *(*const all[])(void *) = {reaper, vandal, answerer, answerer, backend, backend};
	struct thread threads[sizeof all / sizeof all[0]];
	struct shmuring_region_info info;
	unsigned long seed, calls = 0;
	size_t i;
	int rc;

	if (argc != 3)
		return 2;
	seed = strtoul(argv[2], NULL, 10);
	alarm(120);
	GIVES(shmuring_region_create_memfd(&options, &region, NULL), 0);
	GIVES(shmuring_region_info(region, &info), 0);
	n_words = info.bytes / sizeof *words;
	words = (uint64_t *)mmap(NULL, info.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, shmuring_region_fd(region), 0);
	CHECK((void *)words != MAP_FAILED);
	GIVES(shmuring_communicator_take_role(region, &c, NULL), 0);
	for (i = 0; i < sizeof all / sizeof all[0]; i++) {
		threads[i].random = seeded(seed, (int)i);
		threads[i].who = i >= 4 ? (int)i - 4 : 0;
		threads[i].calls = 0;
		CHECK(pthread_create(&threads[i].id, NULL, all[i], &threads[i]) == 0);
	}
	usleep((useconds_t)strtoul(argv[1], NULL, 10) * 1000);
	__atomic_store_n(&is_over, 1, __ATOMIC_RELAXED);
	for (i = 0; i < sizeof all / sizeof all[0]; i++) {
		CHECK(pthread_join(threads[i].id, NULL) == 0);
		calls += threads[i].calls;
	}
	rc = shmuring_communicator_release_role(c);
	CHECK(rc >= 0);
	GIVES(shmuring_region_detach(region), 0);
	printf("calls %lu claims %lu unanswered %d\n", calls, seen, rc);
	CHECK(seen > 0);
	return 0;
}
