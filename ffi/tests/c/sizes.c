/*
 * Description: relation sizes without a request, beside a communicator of another process. `sizes change REGION` makes,
 * grows, cuts and removes a relation fork and looks after each; `sizes look REGION BLOCKS` looks at another one, which
 * the first has left with so many. `sizes storm REGION` has one process extend relations and two others look at them,
 * while communicators come and go, until SIGTERM; it prints how often the size was known.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define PAGE 8192
/* Of a storm: relations, each extended so often; processes that look; slots of each process. */
#define RELATIONS 256
#define EXTENDS 40
#define READERS 2
#define SLOTS 4

static struct shmuring_rel rel(uint32_t number)
{
	return shmuring_rel_of(1663, 5, number, 0);
}

static uint64_t counter(const struct shmuring_region *region, int which)
{
	struct shmuring_owner_stats stats;

	GIVES(shmuring_owner_statistics(region, 0, &stats), 0);
	return stats.counters[which];
}

/* The size of the fork by a request. */
static uint64_t asked(struct shmuring_backend *b, struct shmuring_rel of)
{
	struct shmuring_wait wait = patience();
	struct shmuring_completion done;
	struct shmuring_request r;

	shmuring_prep_rel_size(&r, of, 1, 1);
	GIVES(shmuring_call(b, &r, &wait, NULL, 0, &done), 0);
	GIVES(done.error, 0);
	return done.value;
}

static void is_known(struct shmuring_backend *b, struct shmuring_rel of, uint64_t blocks, uint64_t lsn,
		     uint32_t is_changed)
{
	struct shmuring_rel_size size;

	memset(&size, 0xff, sizeof size);
	GIVES(shmuring_cached_rel_size(b, of, &size), 1);
	GIVES(size.blocks, blocks);
	GIVES(size.lsn, lsn);
	GIVES(size.is_changed, is_changed);
	GIVES(size.reserved, 0);
}

static void does(struct shmuring_backend *b, const struct shmuring_request *r)
{
	struct shmuring_wait wait = patience();
	struct shmuring_completion done;

	GIVES(shmuring_call(b, r, &wait, NULL, 0, &done), 0);
	GIVES(done.error, 0);
}

static void change(struct shmuring_region *region, struct shmuring_backend *b)
{
	static const char image[PAGE] = {1};
	const struct shmuring_rel one = rel(16384), other = rel(16385), none = rel(16386);
	struct shmuring_rel_size size;
	struct shmuring_request r;
	uint64_t submitted;

	GIVES(shmuring_cached_rel_size(b, one, &size), 0);
	shmuring_prep_create(&r, one, 100);
	does(b, &r);
	is_known(b, one, 0, 100, 1);
	shmuring_prep_extend(&r, one, 0, 110, image);
	does(b, &r);
	is_known(b, one, 1, 110, 1);
	shmuring_prep_zero_extend(&r, one, 1, 9, 120);
	does(b, &r);
	is_known(b, one, 10, 120, 1);
	GIVES(asked(b, one), 10);
	shmuring_prep_truncate(&r, one, 4, 130);
	does(b, &r);
	is_known(b, one, 4, 130, 1);
	GIVES(asked(b, one), 4);
	shmuring_prep_unlink(&r, one, 140);
	does(b, &r);
	is_known(b, one, SHMURING_MISSING, 140, 1);

	/* What nobody changed is known once it was asked for. */
	GIVES(shmuring_cached_rel_size(b, none, &size), 0);
	GIVES(asked(b, none), SHMURING_MISSING);
	GIVES(shmuring_cached_rel_size(b, none, &size), 1);
	CHECK(size.blocks == SHMURING_MISSING && size.is_changed == 0);

	shmuring_prep_create(&r, other, 100);
	does(b, &r);
	shmuring_prep_zero_extend(&r, other, 0, 7, 150);
	does(b, &r);
	submitted = counter(region, SHMURING_OWNER_SUBMITTED);
	is_known(b, other, 7, 150, 1);
	GIVES(counter(region, SHMURING_OWNER_SUBMITTED), submitted);
	GIVES(counter(region, SHMURING_OWNER_REL_SIZE_HITS), 7);
	GIVES(counter(region, SHMURING_OWNER_REL_SIZE_MISSES), 2);
}

/* What is certain of a storm's relations, in numbers of blocks and one: at least what was acknowledged, at most tried. */
struct truth {
	uint64_t acknowledged[RELATIONS];
	uint64_t tried[RELATIONS];
	uint64_t current;
	uint64_t looks, hits;
	uint64_t is_over;
};

static volatile sig_atomic_t told;

static void end(int signal)
{
	(void)signal;
	told = 1;
}

static int is_over(const struct truth *truth)
{
	return __atomic_load_n(&truth->is_over, __ATOMIC_SEQ_CST) != 0;
}

static void extend_all(struct shmuring_backend *b, struct truth *truth)
{
	struct shmuring_request r;
	uint64_t i, n, blocks;

	for (i = 0; i < RELATIONS && !is_over(truth); i++) {
		__atomic_store_n(&truth->tried[i], 1, __ATOMIC_SEQ_CST);
		shmuring_prep_create(&r, rel(1000 + (uint32_t)i), 100);
		does(b, &r);
		__atomic_store_n(&truth->acknowledged[i], 1, __ATOMIC_SEQ_CST);
		__atomic_store_n(&truth->current, i, __ATOMIC_SEQ_CST);
		for (n = 0, blocks = 0; n < EXTENDS && !is_over(truth); n++) {
			uint64_t more = 1 + (n * 7 + i) % 5;

			__atomic_store_n(&truth->tried[i], blocks + more + 1, __ATOMIC_SEQ_CST);
			shmuring_prep_zero_extend(&r, rel(1000 + (uint32_t)i), (uint32_t)blocks, (uint32_t)more, 110 + n);
			does(b, &r);
			blocks += more;
			__atomic_store_n(&truth->acknowledged[i], blocks + 1, __ATOMIC_SEQ_CST);
		}
	}
}

/*
 * No size is ever below what was acknowledged before the look. Some are asked for, so that reads race with extends. At
 * the end one is known, for nobody changes it then.
 */
static void look_at_all(struct shmuring_backend *b, struct truth *truth)
{
	uint64_t looks = 0, hits = 0, late = 0;

	for (; !is_over(truth) || hits == 0; looks++) {
		uint64_t at_least, found, i = __atomic_load_n(&truth->current, __ATOMIC_SEQ_CST);
		struct shmuring_rel of = rel(1000 + (uint32_t)i);
		struct shmuring_rel_size size;

		late += is_over(truth) ? 1 : 0;
		CHECK(late < 10000);
		at_least = __atomic_load_n(&truth->acknowledged[i], __ATOMIC_SEQ_CST);
		if (looks % 16 != 0 && shmuring_cached_rel_size(b, of, &size) == 1) {
			found = size.blocks == SHMURING_MISSING ? 0 : size.blocks + 1;
			hits++;
		} else {
			found = asked(b, of);
			found = found == SHMURING_MISSING ? 0 : found + 1;
		}
		if (found < at_least || found > __atomic_load_n(&truth->tried[i], __ATOMIC_SEQ_CST)) {
			fprintf(stderr, "relation %d: %lld blocks, and %lld were acknowledged before\n", (int)i,
				(long long)found - 1, (long long)at_least - 1);
			exit(1);
		}
	}
	__atomic_add_fetch(&truth->looks, looks, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&truth->hits, hits, __ATOMIC_SEQ_CST);
}

static void storm(const char *path)
{
	struct truth *truth = (struct truth *)mmap(NULL, sizeof *truth, PROT_READ | PROT_WRITE,
						   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t children[READERS + 1];
	int i, status;

	CHECK((void *)truth != MAP_FAILED);
	signal(SIGTERM, end);
	for (i = 0; i <= READERS; i++) {
		children[i] = fork();
		CHECK(children[i] >= 0);
		if (children[i] == 0) {
			struct shmuring_region *region = region_at(path);
			struct shmuring_backend *b = backend_of(region, (uint32_t)i * SLOTS, SLOTS);

			(i == 0 ? extend_all : look_at_all)(b, truth);
			leave(b, region);
			exit(0);
		}
	}
	puts("storming");
	fflush(stdout);
	while (!told)
		usleep(1000);
	__atomic_store_n(&truth->is_over, 1, __ATOMIC_SEQ_CST);
	for (i = 0; i <= READERS; i++)
		CHECK(waitpid(children[i], &status, 0) == children[i] && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	printf("relations %llu looks %llu known %llu\n", (unsigned long long)truth->current + 1,
	       (unsigned long long)truth->looks, (unsigned long long)truth->hits);
}

int main(int argc, char **argv)
{
	struct shmuring_region *region;
	struct shmuring_backend *b;

	if (argc < 3)
		return 2;
	if (strcmp(argv[1], "storm") == 0) {
		storm(argv[2]);
		return 0;
	}
	region = region_at(argv[2]);
	b = backend_of(region, 0, 4);
	if (strcmp(argv[1], "change") == 0)
		change(region, b);
	else
		is_known(b, rel(16385), strtoul(argv[3], NULL, 10), 150, 1);
	leave(b, region);
	return 0;
}
