/*
 * Description: each step of a request a known number of times, for an instruction counter: ci/instructions.sh. A step
 * is a function of its own, as a caller compiles it, and is never inlined: what is counted is it and all that it
 * calls. Prints how often each ran. `steps REGION` wants a communicator that never sleeps.
 */
#include <stdio.h>
#include <stdlib.h>

#include "shmuring.h"

#define BATCH 32
#define ROUNDS 256
/* How the requests of a round are made: each step by itself, all submitted at once, or all steps in one. */
enum { ANY, MANY, START, KINDS };
/* Polls of one step: more than one, since the inline poll has neither a call nor a return. */
#define POLLS 16

#define STEP static __attribute__((__noinline__))

#define DEMAND(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			exit(1); \
		} \
	} while (0)

STEP int step_free_slot(struct shmuring_backend *b)
{
	return shmuring_free_slot(b);
}

STEP shmuring_ref step_fill_get_page(struct shmuring_backend *b, uint32_t slot, struct shmuring_rel rel, uint32_t block)
{
	return shmuring_fill_get_page(b, slot, rel, block, 1);
}

STEP shmuring_ref step_fill_any(struct shmuring_backend *b, uint32_t slot, struct shmuring_rel rel, uint32_t block)
{
	struct shmuring_request r;

	shmuring_prep_get_page(&r, rel, block, 1, 1);
	return shmuring_fill(b, slot, &r);
}

STEP shmuring_ref step_start_get_page(struct shmuring_backend *b, struct shmuring_rel rel, uint32_t block)
{
	return shmuring_start_get_page(b, rel, block, 1);
}

STEP int step_submit(struct shmuring_backend *b, shmuring_ref ref)
{
	return shmuring_submit(b, ref);
}

STEP int step_submit_many(struct shmuring_backend *b, const shmuring_ref *refs)
{
	return shmuring_submit_many(b, refs, BATCH);
}

/* The compiler knows nothing of the reference, nor of the memory: each poll does all of its work. */
#define POLL_ONCE \
	__asm__ volatile("" : "+r"(ref) : : "memory"); \
	if (shmuring_poll(b, ref) != 1) \
		return 0;
STEP int step_poll_hit(const struct shmuring_backend *b, shmuring_ref ref)
{
	int i;

	/* Few copies, or the compiler makes calls of some. */
	for (i = 0; i < POLLS; i += 4) {
		POLL_ONCE
		POLL_ONCE
		POLL_ONCE
		POLL_ONCE
	}
	return 1;
}

STEP int step_finish(struct shmuring_backend *b, shmuring_ref ref)
{
	struct shmuring_completion result;

	return shmuring_finish(b, ref, &result);
}

static void round_trip(struct shmuring_backend *b, int kind)
{
	struct shmuring_rel rel = shmuring_rel_of(1663, 5, 16384, 0);
	shmuring_ref refs[BATCH];
	uint32_t i;
	int slot;

	for (i = 0; i < BATCH; i++) {
		if (kind == START) {
			refs[i] = step_start_get_page(b, rel, i);
			DEMAND(refs[i] >= 0);
			continue;
		}
		slot = step_free_slot(b);
		DEMAND(slot >= 0);
		refs[i] = kind == ANY ? step_fill_any(b, (uint32_t)slot, rel, i)
				      : step_fill_get_page(b, (uint32_t)slot, rel, i);
		DEMAND(refs[i] >= 0);
		if (kind == ANY)
			DEMAND(step_submit(b, refs[i]) == 0);
	}
	if (kind == MANY)
		DEMAND(step_submit_many(b, refs) == 0);
	for (i = 0; i < BATCH; i++) {
		/* Nobody sleeps, so that none is to be woken. */
		while (shmuring_poll(b, refs[i]) == 0)
			;
		DEMAND(step_poll_hit(b, refs[i]));
		DEMAND(step_finish(b, refs[i]) == 0);
	}
}

int main(int argc, char **argv)
{
	struct shmuring_region *region;
	struct shmuring_backend *b;
	struct shmuring_error err;
	struct shmuring_wait wait = {UINT64_MAX, NULL, 0};
	int round;

	if (argc != 2)
		return 2;
	if (shmuring_region_attach(argv[1], &region, &err) < 0 ||
	    shmuring_backend_attach(region, 0, BATCH, &b, &err) < 0) {
		fprintf(stderr, "%s: %s\n", argv[1], err.text);
		return 1;
	}
	for (round = 0; round < ROUNDS * KINDS; round++)
		round_trip(b, round % KINDS);
	DEMAND(shmuring_backend_detach(b, &wait) == 0);
	DEMAND(shmuring_backend_free(b) == 0 && shmuring_region_detach(region) == 0);

	printf("free_slot %d\n", 2 * ROUNDS * BATCH);
	printf("fill_any %d\n", ROUNDS * BATCH);
	printf("fill_get_page %d\n", ROUNDS * BATCH);
	printf("start_get_page %d\n", ROUNDS * BATCH);
	printf("submit %d\n", ROUNDS * BATCH);
	printf("submit_many %d\n", ROUNDS * BATCH);
	printf("poll_hit %d\n", KINDS * ROUNDS * BATCH * POLLS);
	printf("finish %d\n", KINDS * ROUNDS * BATCH);
	return 0;
}
