/*
 * Description: a communicator that has relations without pages, and the library keep their sizes; it answers in two
 * threads, until SIGTERM.
 *
 * relations REGION FILE [hold | slow]: the relations are in FILE, and survive the process. It fails a zero_extend of
 * 1000 blocks after it has done it, drops one of 999, and is not sure of what it creates as fork 3. With `hold` it does
 * a zero_extend of 500 blocks, says so, and does not answer it; with `slow` it takes its time before each answer.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "shmuring/host.h"

#define BATCH 16
#define FORKS 512
#define WORKERS 2

struct fork_of {
	uint32_t rel_number;
	uint32_t fork;
	uint32_t exists;
	uint32_t blocks;
};

static struct shmuring_communicator *c;
static volatile sig_atomic_t told;
static struct fork_of *forks;
static pthread_mutex_t forks_lock = PTHREAD_MUTEX_INITIALIZER;
static int to_workers[2];
static int holds, is_slow;

static void tell(int signal)
{
	(void)signal;
	told = 1;
	shmuring_communicator_wake(c);
}

/* The fork of a claim, whether it exists or not. */
static struct fork_of *find(const struct shmuring_claim *claim)
{
	int i;

	for (i = 0; i < FORKS; i++) {
		if (forks[i].rel_number == 0) {
			forks[i].fork = claim->fork;
			forks[i].rel_number = claim->rel_number;
		}
		if (forks[i].rel_number == claim->rel_number && forks[i].fork == claim->fork)
			return &forks[i];
	}
	CHECK(0);
	return NULL;
}

/* Does what is asked for: the errno, and the value. */
static int apply(const struct shmuring_claim *claim, uint64_t *value)
{
	struct fork_of *of = find(claim);
	uint32_t end = claim->block + (claim->opcode == SHMURING_OP_EXTEND ? 1 : claim->arg);
	int is_again = claim->claim_flags & SHMURING_CLAIM_AGAIN;

	*value = 0;
	switch (claim->opcode) {
	case SHMURING_OP_CREATE:
		if (of->exists)
			return is_again ? 0 : EEXIST;
		of->exists = 1;
		of->blocks = 0;
		return 0;
	case SHMURING_OP_UNLINK:
		of->exists = 0;
		return 0;
	case SHMURING_OP_REL_SIZE:
		*value = of->exists ? of->blocks : SHMURING_MISSING;
		return 0;
	case SHMURING_OP_REL_EXISTS:
		*value = of->exists;
		return 0;
	case SHMURING_OP_EXTEND:
	case SHMURING_OP_ZERO_EXTEND:
		if (!of->exists)
			return ENOENT;
		if (of->blocks < end)
			of->blocks = end;
		return claim->arg == 1000 ? ENOSPC : 0;
	case SHMURING_OP_TRUNCATE:
		if (of->blocks > claim->block)
			of->blocks = claim->block;
		return 0;
	default:
		return EOPNOTSUPP;
	}
}

static void answer(const struct shmuring_claim *claim)
{
	static char image[SHMURING_DEFAULT_BLOCK_SIZE];
	uint64_t value;
	int error;

	CHECK(pthread_mutex_lock(&forks_lock) == 0);
	if (claim->opcode == SHMURING_OP_EXTEND) {
		GIVES(shmuring_claim_take_image(c, claim->ref, 0, image, sizeof image), 0);
		GIVES(shmuring_claim_suspend(c, claim->ref), 0);
	}
	error = apply(claim, &value);
	CHECK(pthread_mutex_unlock(&forks_lock) == 0);
	if (is_slow)
		usleep(claim->block % 7 * 50);
	if (holds && claim->opcode == SHMURING_OP_ZERO_EXTEND && claim->arg == 500) {
		puts("holding");
		fflush(stdout);
	} else if (claim->opcode == SHMURING_OP_ZERO_EXTEND && claim->arg == 999) {
		GIVES(shmuring_claim_drop(c, claim->ref), 0);
	} else if (error != 0) {
		GIVES(shmuring_claim_fail(c, claim->ref, error, 0, 1), 0);
	} else {
		int rc;

		if (claim->opcode == SHMURING_OP_CREATE && claim->fork == 3)
			GIVES(shmuring_claim_forget_size(c, claim->ref), 0);
		rc = shmuring_claim_complete(c, claim->ref, value, 77);
		CHECK(rc == 0 || rc == SHMURING_ERR_WITHDRAWN);
	}
}

static void *answer_all(void *none)
{
	struct shmuring_claim claim;

	while (read(to_workers[0], &claim, sizeof claim) == (ssize_t)sizeof claim)
		answer(&claim);
	return none;
}

static void hand_on(const struct shmuring_claim *claims, int n)
{
	int i;

	for (i = 0; i < n; i++)
		CHECK(write(to_workers[1], &claims[i], sizeof claims[i]) == (ssize_t)sizeof claims[i]);
}

int main(int argc, char **argv)
{
	struct shmuring_claim claims[BATCH];
	struct shmuring_region *region;
	pthread_t workers[WORKERS];
	int fd, i, n, inherited;

	if (argc < 3)
		return 2;
	holds = argc > 3 && strcmp(argv[3], "hold") == 0;
	is_slow = argc > 3 && strcmp(argv[3], "slow") == 0;
	fd = open(argv[2], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0 && ftruncate(fd, FORKS * sizeof(struct fork_of)) == 0 && pipe(to_workers) == 0);
	forks = (struct fork_of *)mmap(NULL, FORKS * sizeof(struct fork_of), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK((void *)forks != MAP_FAILED);
	region = region_at(argv[1]);
	GIVES(shmuring_communicator_take_role(region, &c, NULL), 0);
	inherited = shmuring_communicator_inherited(c);
	GIVES(shmuring_communicator_keep_sizes(c, SHMURING_SIZES_OF_READS), 0);
	signal(SIGTERM, tell);
	for (i = 0; i < WORKERS; i++)
		CHECK(pthread_create(&workers[i], NULL, answer_all, NULL) == 0);
	printf("serving epoch %u inherited %d\n", shmuring_communicator_epoch(c), inherited);
	fflush(stdout);
	for (n = shmuring_communicator_sweep(c, claims, BATCH); n > 0 || (n == 0 && !told);) {
		hand_on(claims, n);
		n = shmuring_communicator_reap_or_park(c, SHMURING_STATE_PROCESSING, claims, BATCH, 1000000000);
		if (n == 0)
			n = shmuring_communicator_audit(c, claims, BATCH);
	}
	CHECK(n == 0 && close(to_workers[1]) == 0);
	for (i = 0; i < WORKERS; i++)
		CHECK(pthread_join(workers[i], NULL) == 0);
	GIVES(shmuring_communicator_release_role(c), 0);
	GIVES(shmuring_region_detach(region), 0);
	puts("stopped");
	return 0;
}
