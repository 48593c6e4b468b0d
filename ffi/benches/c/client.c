/*
 * Description: round trips of one-block reads, one at a time, from C: `client REGION ROUNDS [steps]`; prints ns
 * for each. With `steps` a slot is found, filled and submitted by a call each.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "shmuring.h"

#define DEMAND(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			exit(1); \
		} \
	} while (0)

static shmuring_ref started(struct shmuring_backend *b, struct shmuring_rel rel, uint32_t block, int steps)
{
	int slot;
	shmuring_ref ref;

	if (!steps)
		return shmuring_start_get_page(b, rel, block, 1);
	slot = shmuring_free_slot(b);
	ref = shmuring_fill_get_page(b, (uint32_t)slot, rel, block, 1);
	DEMAND(ref >= 0 && shmuring_submit(b, ref) == 0);
	return ref;
}

static void round_trips(struct shmuring_backend *b, long rounds, int steps)
{
	struct shmuring_rel rel = shmuring_rel_of(1663, 5, 16384, 0);
	struct shmuring_wait wait = {UINT64_MAX, NULL, 0};
	struct shmuring_completion done;
	long i;

	for (i = 0; i < rounds; i++) {
		shmuring_ref ref = started(b, rel, (uint32_t)i, steps);

		DEMAND(shmuring_wait(b, ref, &wait) == 0);
		DEMAND(shmuring_finish(b, ref, &done) == 0 && done.value == 1);
	}
}

int main(int argc, char **argv)
{
	struct shmuring_region *region;
	struct shmuring_backend *b;
	uint64_t begin;
	cpu_set_t cpus;
	long rounds;

	if (argc < 3)
		return 2;
	CPU_ZERO(&cpus);
	CPU_SET(0, &cpus);
	DEMAND(sched_setaffinity(0, sizeof cpus, &cpus) == 0);
	DEMAND(shmuring_region_attach(argv[1], &region, NULL) == 0);
	DEMAND(shmuring_backend_attach(region, 0, 8, &b, NULL) >= 0);
	rounds = strtol(argv[2], NULL, 10);
	round_trips(b, rounds / 10, argc > 3);
	begin = shmuring_deadline_ms(0);
	round_trips(b, rounds, argc > 3);
	printf("%f\n", (double)(shmuring_deadline_ms(0) - begin) / (double)rounds);
	DEMAND(shmuring_backend_free(b) == 0 && shmuring_region_detach(region) == 0);
	return 0;
}
